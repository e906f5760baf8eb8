"""What a search tells of itself, and to whom. A view can be made anew from the study, so it may
miss things for a while, and a search never waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detector.base.errors import UserError
from trials.record import TrialRecord

FIRST_WAIT, LONGEST_WAIT = 10.0, 300.0
"""Seconds until a view that is away is asked again; the wait doubles each time."""
PATIENCE = 2.0
"""Seconds of a call within which missed facts are handed on."""


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """One trial as it is shown."""

    record: TrialRecord
    title: str
    """Tells the design."""
    params: Mapping[str, object]
    """The choices that matter."""
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """The study's own numbers at one moment."""

    step: int
    """Trials begun by then."""
    time: float
    """Unix seconds."""
    values: Mapping[str, float]


class Away(Exception):
    """A view cannot be reached now; its message is one line."""


class View(Protocol):
    """What others keep of a study. Told the same again, it stays the same.

    Every method may raise `Away`.
    """

    def trial(self, view: TrialView) -> None:
        """A trial's new state."""

    def course(self, points: Sequence[CoursePoint]) -> None:
        """The study's numbers from its beginning to now."""

    def files(self, paths: Sequence[Path]) -> None:
        """The study's tables and pictures."""

    def close(self, ended: bool) -> None:
        """Nothing more is told. `ended`: nothing is left to train either."""


class Tracker(Protocol):
    """Whom a search tells what happened; see `View`. Never raises `Away`."""

    def trials(self, views: Sequence[TrialView]) -> None: ...

    def course(self, points: Sequence[CoursePoint]) -> None: ...

    def files(self, paths: Sequence[Path]) -> None: ...

    def close(self, ended: bool) -> bool:
        """Whether the view has all of it."""


class NullTracker:
    """Takes down nothing."""

    def trials(self, views):
        pass

    def course(self, points):
        pass

    def files(self, paths):
        pass

    def close(self, ended):
        return True


class Patience:
    """When to ask a view that was away again, and what the user is told of it: a line when it
    goes away and one when it is back.

    Args:
        doing: what goes on meanwhile, such as "the search".
    """

    def __init__(self, doing: str, clock: Callable[[], float] = time.monotonic):
        self._doing, self._clock = doing, clock
        self._wait, self._again_at = FIRST_WAIT, 0.0
        self.away = False

    @property
    def asks(self) -> bool:
        """Whether it is time to try."""
        return not self.away or self._clock() >= self._again_at

    def failed(self, error: Exception) -> None:
        if not self.away:
            tell(
                f"note: MLflow does not answer ({error}); {self._doing} goes on and keeps "
                "everything"
            )
        self.away = True
        self._again_at = self._clock() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def answered(self) -> None:
        if self.away:
            tell("note: MLflow is back; it is told what it missed")
        self.away, self._wait = False, FIRST_WAIT


class PatientTracker:
    """Hands on to a view that may be away for a while and is told what it missed when it is back.

    A call lasts as long as one question that fails, or hands on for PATIENCE seconds; `close`
    takes the time it needs while it is answered.

    Args:
        open: makes the view; raises UserError where it cannot be used.
        again: the command that makes the view anew.

    Raises:
        UserError: it cannot be used from the start.
    """

    def __init__(
        self,
        open: Callable[[], Tracker],
        again: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._open, self._again, self._clock = open, again, clock
        self._inner: View | None = open()
        self._patience = Patience("the search", clock)
        self._trials: dict[int, TrialView] = {}
        self._due: dict[int, None] = {}  # numbers of trials, in the order they were told
        self._course: Sequence[CoursePoint] = ()
        self._files: Sequence[Path] = ()
        self._course_due = self._files_due = False

    def __reduce__(self):
        """Ray pickles all that a search holds, but reads nothing of it again."""
        return NullTracker, ()

    def trials(self, views: Sequence[TrialView]) -> None:
        found = {view.record.number: view for view in views}
        self._trials |= found
        self._due |= dict.fromkeys(found)
        self._catch_up(PATIENCE)

    def course(self, points: Sequence[CoursePoint]) -> None:
        self._course, self._course_due = points, True
        self._catch_up(PATIENCE)

    def files(self, paths: Sequence[Path]) -> None:
        self._files, self._files_due = paths, True
        self._catch_up(PATIENCE)

    def close(self, ended: bool) -> bool:
        self._catch_up(float("inf"), last=True)
        if self._inner is not None:
            try:
                self._inner.close(ended)
                return True
            except Away as error:
                self._patience.failed(error)
        missing = [f"{len(self._due)} of {len(self._trials)} trials"] if self._due else []
        missing.append("the study's own numbers and pictures")
        tell(f"note: MLflow lacks {' and '.join(missing)}; when it is back: {self._again}")
        return False

    def _catch_up(self, seconds: float, last: bool = False) -> None:
        if not (last or self._patience.asks):
            return
        until = self._clock() + seconds
        try:
            if self._inner is None:
                self._inner = self._open()
                # It knows itself what it has of them, also if a call was half done, or it is a
                # new one.
                self._due = dict.fromkeys(self._trials)
                self._course_due, self._files_due = bool(self._course), bool(self._files)
            self._patience.answered()
            while self._due and self._clock() < until:
                number = next(iter(self._due))
                self._inner.trial(self._trials[number])
                del self._due[number]
            if self._course_due and not self._due:
                self._inner.course(self._course)
                self._course_due = False
            if self._files_due and not self._due:
                self._inner.files(self._files)
                self._files_due = False
        except (Away, UserError) as error:
            self._inner = None
            self._patience.failed(error)


def tell(line: str) -> None:
    """A line on stderr, where a live line may stand."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(clear + line, file=sys.stderr, flush=True)
