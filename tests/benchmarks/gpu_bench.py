"""How the GPU report runs its processes and stores their results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # for scripts

DEADLINES = {"tests": 90, "rates": 90, "parity": 150, "search": 150, "retrain": 200}
"""Seconds of each part, in the order in which they are measured."""
STOPPED = "stopped at its deadline"
GRACE = 8  # seconds between SIGINT and SIGKILL
STUDY = "gpu"
BASELINE = "retinaface_mobile025"


@dataclass(frozen=True)
class Sizes:
    """The amount of work in each part."""

    size: int = 640
    """Side of the training crops, px."""
    batch: int = 32
    rate_seconds: float = 1.5
    """Duration of the measurement of a step's rate; a whole training runs three times as long."""
    epoch_images: int = 6400
    """Images per epoch of a whole training."""
    parity_epochs: int = 40
    parity_batch: int = 16
    space: str = "retina"
    trials: int = 100
    fraction: float = 1.0
    """Share of the training images that the search uses."""
    retrained: int = 4
    """How many of the search's best designs, and how many presets, are retrained."""
    retrain_epochs: int = 100
    test_size: str = "original"
    """As for nas.evaluate."""


TINY = Sizes(
    size=64,
    batch=4,
    rate_seconds=0.3,
    epoch_images=16,
    parity_epochs=1,
    space="quick",
    trials=2,
    fraction=0.1,
    retrained=1,
    retrain_epochs=1,
    test_size="96",
)


class Bench:
    """Runs commands with deadlines, and keeps results.json up to date."""

    def __init__(self, args: Namespace):
        self.args, self.work = args, args.work
        self.sizes = sizes_of(args)
        self.file = args.out / "results.json"
        self.results: dict = read(self.file)
        self.end = time.monotonic() + args.seconds - GRACE
        self._lock = threading.RLock()

    def put(self, part: str, **values: object) -> None:
        """Store values of a part; the file is replaced atomically."""
        with self._lock:
            self.results.setdefault(part, {}).update(values)
            write(self.file, self.results)

    def row(self, part: str, name: str, **values: object) -> None:
        """Store values of one row of a part's table."""
        with self._lock:
            rows = self.results[part].get("rows", {})
            self.put(part, rows=rows | {name: rows.get(name, {}) | values})

    def python(
        self,
        name: str,
        argv: list,
        until: float,
        *,
        at_once: int = 1,
        watch: Callable[[], None] = lambda: None,
    ) -> str:
        """Run Python, at the longest until `until`; returns what went wrong, or an empty string.

        Args:
            at_once: processes that share the cores, which limits the threads of each.
            watch: called every second, and at the end.
        """
        if min(until, self.end) - time.monotonic() < 1:
            return "not started: no time was left"
        started, stopped, output_file = time.monotonic(), False, self.work / f"{name}.txt"
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        threads = 1 if self.args.tiny else max(1, cores() // at_once)
        with output_file.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, argv)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                env=os.environ
                | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)},
            )
            while process.poll() is None and not stopped:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                watch()
                stopped = process.poll() is None and time.monotonic() > min(until, self.end)
            interrupt(process)
        text = output_file.read_text(errors="replace").strip()
        with self._lock, (self.args.out / "log.txt").open("a") as log:
            log.write(
                f"== {self.shown(argv)}\n{text}\n== {name}: exit code {process.returncode} "
                f"after {time.monotonic() - started:.1f} s\n\n"
            )
        last = (text.splitlines() or ["it printed nothing"])[-1][:300]
        return STOPPED if stopped else f"failed: {last}" if process.returncode else ""

    def shown(self, argv: list) -> str:
        """The command as typed, with names instead of this machine's folders."""
        text = " ".join(["python", *map(str, argv)]).replace(str(self.work), "WORK")
        text = text.replace(str(self.args.backbone), "BACKBONE")
        return text if self.args.data == "synthetic" else text.replace(self.args.data, "WIDER")


def interrupt(process: subprocess.Popen) -> None:
    """Send SIGINT, and after a while SIGKILL, to a process and its group."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def write(file: Path, content: dict) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, file)


def sizes_of(args: Namespace) -> Sizes:
    sizes = TINY if args.tiny else Sizes()
    return replace(
        sizes,
        retrain_epochs=args.retrain_epochs or sizes.retrain_epochs,
        retrained=args.retrained or sizes.retrained,
    )
