"""A view that is unavailable for a while: what is sent later, and when it is tried again."""

import helpers
import pytest

from detector.base.errors import UserError
from trials.record import Status
from trials.tracking.tracker import ProgressPoint, RetryingTracker, TrackerUnavailable, TrialView


def view(number: int, rung: int = 0) -> TrialView:
    record = helpers.trial_record(number, status=Status.PAUSED, rung=rung)
    return TrialView(record=record, title=f"r{number}", params={}, on_front=False)


class FakeView:
    """A view in memory, available while `works`."""

    def __init__(self):
        self.works, self.requests, self.opened = True, 0, 0
        self.rungs, self.points, self.paths, self.closed = {}, (), (), None
        self.seconds_per_trial = 0.0  # on the clock below
        self.now = 0.0

    def open(self):
        self.opened += 1
        if not self.works:
            self.requests += 1
            raise UserError("no server answers")
        return self

    def _request(self):
        self.requests += 1
        if not self.works:
            raise TrackerUnavailable("refused")

    def log_trial(self, view):
        self._request()
        self.now += self.seconds_per_trial
        self.rungs[view.record.number] = view.record.rung

    def log_progress(self, points):
        self._request()
        self.points = points

    def log_files(self, paths):
        self._request()
        self.paths = paths

    def close(self, ended):
        self._request()
        self.closed = ended


@pytest.fixture
def fake():
    return FakeView()


@pytest.fixture
def tracker(fake):
    return RetryingTracker(fake.open, "python -m nas.sync --study one", clock=lambda: fake.now)


def test_missed_reports_are_sent_when_it_is_back(fake, tracker, caplog):
    tracker.log_trials([view(0)])
    fake.works = False
    tracker.log_trials([view(1)])
    tracker.log_trials([view(1, rung=1)])
    tracker.log_progress([ProgressPoint(step=2, time=1.0, values={"best_score": 1.0})])
    fake.works = True
    tracker.log_trials([view(2)])  # not tried yet: 10 s have not passed
    assert fake.rungs == {0: 0}
    fake.now += 11
    fake.rungs.clear()  # it came back empty
    tracker.log_trials([view(3)])
    assert fake.rungs == {0: 0, 1: 1, 2: 0, 3: 0} and fake.points[0].step == 2
    assert tracker.close(True) and fake.closed is True
    lost, back = caplog.messages
    assert "does not answer (refused)" in lost and "is back" in back


def test_attempts_become_rarer_and_missed_reports_are_named(fake, tracker, caplog):
    fake.works = False
    for _ in range(3600):
        fake.now += 1
        tracker.log_trials([view(0), view(1)])
    assert 12 <= fake.requests <= 18  # after 10, 20, 40 … 300, 300 s
    assert not tracker.close(False)
    _, lacking = caplog.messages
    assert lacking == (
        "note: MLflow lacks 2 of 2 trials and the study's own numbers and pictures; "
        "when it is back: python -m nas.sync --study one"
    )


def test_catching_up_does_not_block_the_search(fake, tracker):
    fake.seconds_per_trial = 0.5
    tracker.log_trials([view(number) for number in range(20)])
    assert fake.now <= 2.5 and len(fake.rungs) <= 5
    tracker.log_trials([view(20)])
    assert fake.now <= 5.0
    assert tracker.close(True) and len(fake.rungs) == 21


def test_a_view_that_cannot_be_opened_is_an_error(fake):
    fake.works = False
    with pytest.raises(UserError, match="no server answers"):
        RetryingTracker(fake.open, "")
