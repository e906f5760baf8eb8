"""What a search reports, and to whom. A view can be rebuilt from the study at any time, so it may
miss reports for a while, and a search never waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detector.base.errors import UserError
from trials.record import TrialRecord

FIRST_WAIT, LONGEST_WAIT = 10.0, 300.0
"""Seconds until the next attempt to reach an unavailable view; the wait doubles each time."""
CATCH_UP_SECONDS = 2.0
"""Time within one call for sending missed reports."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """One trial as it is shown."""

    record: TrialRecord
    title: str
    """Number and design in a few words."""
    params: Mapping[str, object]
    """The sampler's choices."""
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class ProgressPoint:
    """The study's own metrics at one moment."""

    step: int
    """Trials started by then."""
    time: float
    """Unix seconds."""
    values: Mapping[str, float]


class TrackerUnavailable(Exception):
    """A view cannot be reached at the moment; the message is one line."""


class View(Protocol):
    """A copy of a study; its methods are idempotent and may raise `TrackerUnavailable`."""

    def log_trial(self, view: TrialView) -> None:
        """A trial's current state."""

    def log_progress(self, points: Sequence[ProgressPoint]) -> None:
        """The study's metrics from its start until now."""

    def log_files(self, paths: Sequence[Path]) -> None:
        """The study's tables and pictures."""

    def close(self, ended: bool) -> None:
        """No more reports follow. `ended`: the search is complete, too."""


class Tracker(Protocol):
    """Takes the reports of a search, see `View`. Never raises `TrackerUnavailable`."""

    def log_trials(self, views: Sequence[TrialView]) -> None: ...

    def log_progress(self, points: Sequence[ProgressPoint]) -> None: ...

    def log_files(self, paths: Sequence[Path]) -> None: ...

    def close(self, ended: bool) -> bool:
        """Whether the view is complete."""


class NullTracker:
    """Discards all reports."""

    def log_trials(self, views: Sequence[TrialView]) -> None:
        pass

    def log_progress(self, points: Sequence[ProgressPoint]) -> None:
        pass

    def log_files(self, paths: Sequence[Path]) -> None:
        pass

    def close(self, ended: bool) -> bool:
        return True


class RetryBackoff:
    """When to try an unavailable view again; logs when it becomes unavailable and when it is back.

    Args:
        activity: what continues meanwhile, such as "the search".
    """

    def __init__(self, activity: str, clock: Callable[[], float] = time.monotonic):
        self._activity, self._clock = activity, clock
        self._wait, self._next_attempt = FIRST_WAIT, 0.0
        self.available = True

    @property
    def due(self) -> bool:
        """Whether it is time for an attempt."""
        return self.available or self._clock() >= self._next_attempt

    def failed(self, error: Exception) -> None:
        if self.available:
            logger.warning(
                "note: MLflow does not answer (%s); %s continues and keeps everything",
                error,
                self._activity,
            )
        self.available = False
        self._next_attempt = self._clock() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def succeeded(self) -> None:
        if not self.available:
            logger.warning("note: MLflow is back; it gets the reports that it missed")
        self.available, self._wait = True, FIRST_WAIT


class RetryingTracker:
    """Passes reports to a view that may be unavailable for a while and gets what it missed later.

    A call takes as long as one failing request, or sends for CATCH_UP_SECONDS; `close` takes the
    time it needs as long as the view answers.

    Args:
        open_view: opens the view; raises UserError if it cannot be used.
        sync_command: the command that rebuilds the view.

    Raises:
        UserError: the view cannot be used from the start.
    """

    def __init__(
        self,
        open_view: Callable[[], View],
        sync_command: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._open_view, self._sync_command, self._clock = open_view, sync_command, clock
        self._view: View | None = open_view()
        self._backoff = RetryBackoff("the search", clock)
        self._trials: dict[int, TrialView] = {}
        self._pending: dict[int, None] = {}  # numbers of trials, in the order of their reports
        self._points: Sequence[ProgressPoint] = ()
        self._files: Sequence[Path] = ()
        self._points_pending = self._files_pending = False

    def __reduce__(self):
        """Ray pickles all that a search holds, but never uses the copy."""
        return NullTracker, ()

    def log_trials(self, views: Sequence[TrialView]) -> None:
        by_number = {view.record.number: view for view in views}
        self._trials |= by_number
        self._pending |= dict.fromkeys(by_number)
        self._catch_up(CATCH_UP_SECONDS)

    def log_progress(self, points: Sequence[ProgressPoint]) -> None:
        self._points, self._points_pending = points, True
        self._catch_up(CATCH_UP_SECONDS)

    def log_files(self, paths: Sequence[Path]) -> None:
        self._files, self._files_pending = paths, True
        self._catch_up(CATCH_UP_SECONDS)

    def close(self, ended: bool) -> bool:
        self._catch_up(float("inf"), last=True)
        if self._view is not None:
            try:
                self._view.close(ended)
                return True
            except TrackerUnavailable as error:
                self._backoff.failed(error)
        missing = [f"{len(self._pending)} of {len(self._trials)} trials"] if self._pending else []
        missing.append("the study's own numbers and pictures")
        logger.warning(
            "note: MLflow lacks %s; when it is back: %s", " and ".join(missing), self._sync_command
        )
        return False

    def _catch_up(self, seconds: float, last: bool = False) -> None:
        if not (last or self._backoff.due):
            return
        until = self._clock() + seconds
        try:
            if self._view is None:
                self._view = self._open_view()
                # Send everything: the view skips what it has. The last call may have been carried
                # out in part, and the store may be a new one.
                self._pending = dict.fromkeys(self._trials)
                self._points_pending, self._files_pending = bool(self._points), bool(self._files)
            self._backoff.succeeded()
            while self._pending and self._clock() < until:
                number = next(iter(self._pending))
                self._view.log_trial(self._trials[number])
                del self._pending[number]
            if self._points_pending and not self._pending:
                self._view.log_progress(self._points)
                self._points_pending = False
            if self._files_pending and not self._pending:
                self._view.log_files(self._files)
                self._files_pending = False
        except (TrackerUnavailable, UserError) as error:
            self._view = None
            self._backoff.failed(error)
