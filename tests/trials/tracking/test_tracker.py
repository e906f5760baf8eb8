"""A tracker that goes away and comes back: what is told again, and when it is asked."""

import pytest

from detector.base.errors import UserError
from detector.config.presets import load_preset
from trials.record import Cost, Status, TrialRecord
from trials.tracking.tracker import Away, CoursePoint, PatientTracker, TrialView

DESIGN, RECIPE = load_preset("retinaface_mobile025")


def view(number: int, rung: int = 0) -> TrialView:
    record = TrialRecord(
        number=number,
        status=Status.PAUSED,
        design="",
        detector=DESIGN,
        recipe=RECIPE,
        params={},
        cost=Cost(params=1, macs=1),
        speed_score=0.5,
        rung=rung,
    )
    return TrialView(record=record, title=f"r{number}", params={}, on_front=False)


class Memory:
    """A view that remembers, and answers while `works`."""

    def __init__(self):
        self.works, self.questions, self.opened = True, 0, 0
        self.told, self.points, self.paths, self.closed = {}, (), (), None
        self.costs = 0.0  # seconds of the clock below that telling a trial takes
        self.now = 0.0

    def open(self):
        self.opened += 1
        if not self.works:
            self.questions += 1
            raise UserError("no server answers")
        return self

    def _asked(self):
        self.questions += 1
        if not self.works:
            raise Away("refused")

    def trial(self, view):
        self._asked()
        self.now += self.costs
        self.told[view.record.number] = view.record.rung

    def course(self, points):
        self._asked()
        self.points = points

    def files(self, paths):
        self._asked()
        self.paths = paths

    def close(self, ended):
        self._asked()
        self.closed = ended


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def patient(memory):
    return PatientTracker(memory.open, "python -m nas.sync --study one", clock=lambda: memory.now)


def test_what_was_missed_is_told_when_it_is_back(memory, patient, capsys):
    patient.trials([view(0)])
    memory.works = False
    patient.trials([view(1)])
    patient.trials([view(1, rung=1)])
    patient.course([CoursePoint(step=2, time=1.0, values={"best_score": 1.0})])
    memory.works = True
    patient.trials([view(2)])  # not asked yet: 10 s have not passed
    assert memory.told == {0: 0}
    memory.now += 11
    memory.told.clear()  # it came back empty
    patient.trials([view(3)])
    assert memory.told == {0: 0, 1: 1, 2: 0, 3: 0} and memory.points[0].step == 2
    assert patient.close(True) and memory.closed is True
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and "does not answer (refused)" in err[0] and "is back" in err[1]


def test_it_is_asked_more_and_more_rarely_and_missed_facts_are_named(memory, patient, capsys):
    memory.works = False
    for _ in range(3600):
        memory.now += 1
        patient.trials([view(0), view(1)])
    assert 12 <= memory.questions <= 18  # after 10, 20, 40 … 300, 300 s
    assert not patient.close(False)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[1] == (
        "note: MLflow lacks 2 of 2 trials and the study's own numbers and pictures; "
        "when it is back: python -m nas.sync --study one"
    )


def test_catching_up_does_not_hold_the_search_up(memory, patient):
    memory.costs = 0.5
    patient.trials([view(number) for number in range(20)])
    assert memory.now <= 2.5 and len(memory.told) <= 5
    patient.trials([view(20)])
    assert memory.now <= 5.0
    assert patient.close(True) and len(memory.told) == 21


def test_one_that_cannot_be_used_from_the_start_is_an_error(memory):
    memory.works = False
    with pytest.raises(UserError, match="no server answers"):
        PatientTracker(memory.open, "")
