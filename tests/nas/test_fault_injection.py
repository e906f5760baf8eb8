"""Fifty random faults against one search: it ends with the trials that it has without any.

The seed is printed with a line for each fault; FAULT_SEED in the environment chooses another.
"""

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from fault_injection import Machine, name

from analysis.records.load import load_records
from detector.base.errors import UserError
from nas.engine.gate import baseline, next_proposal
from nas.samplers.proposer import Proposer
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import Status

FAULTS, TRIALS, RUNGS = 50, 9, "[12, 36, 108]"
SEARCH = (
    *("nas.search", "--space", "tiny.yaml", "--data", "synthetic", "--fraction", "0.3"),
    *("--trials", str(TRIALS), "--sampler", "random", "--seed", "3", "--study", "one", "--resume"),
)
DOWN = ("damaged checkpoint", "damaged cache", "damaged log", "damaged contents", "clock back")
"""Between two starts of the search."""
LIVE = ("killed worker", "stopped process", "MLflow outage")
"""The search goes on."""
ENDS = {
    "killed search": {-signal.SIGKILL},
    "killed raylet": {2},
    "killed gcs_server": {2},
    "SIGTERM": {143, -signal.SIGTERM},  # the latter before the command has begun
    "SIGINT": {130, -signal.SIGINT},
    "full disk": {2},
}
"""The search ends with one of these exit codes."""
WEIGHTS = (4, 2, 1, 2, 2, 2)
MAX_CHECKPOINTS_DAMAGED = 2
"""Of one trial; more are a failure of the disk, which the trial reports."""
EPOCH = re.compile(rb"^\S+ \S+ epoch (\d+): ", re.M)
WORKER = re.compile(rb"; process (\d+) on ")


def plan(rng: random.Random, kinds: list[str]) -> list[tuple[list[str], list[str]]]:
    """The faults before and during each start of the search, `FAULTS` of them."""
    rounds, left = [], FAULTS
    while left:
        down = rng.choices(DOWN, k=min(rng.randrange(3), left - 1)) if rounds else []
        live = rng.choices(LIVE, k=min(rng.randrange(4), left - 1 - len(down)))
        end = rng.choices(kinds, [WEIGHTS[list(ENDS).index(kind)] for kind in kinds])
        rounds.append((down, live + end))
        left -= len(down) + len(live) + 1
    return rounds


class FaultySearch:
    """A search, its faults, and what they may have cost."""

    def __init__(self, machine: Machine, rng: random.Random):
        self.machine, self.rng, self.study = machine, rng, machine.runs / "one"
        self.number = self.starts = 0
        self.counts = Counter[str]()
        self.trained = Counter[tuple[int, int]]()  # (trial, epoch) → times that the log names it
        self.read_until: dict[Path, int] = {}  # bytes of each log that `trained` has counted
        self.interrupted = Counter[int]()  # trial → kills while it was trained
        self.killed_at: dict[int, int] = {}  # trial → epochs logged when its worker was killed
        self.restarts = Counter[int]()  # trial → damaged checkpoints
        self.outage, self.outage_until = None, 0
        self.process = None

    # -- the search ---------------------------------------------------------------------------

    def start(self) -> None:
        self.process = self.machine.start(*SEARCH)
        self.starts += 1

    def wait(self, condition, seconds: float = 120) -> None:
        """Until `condition()`, or the search has ended."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and not condition():
            assert time.monotonic() < until, (self.output("err"), self.output("out"))
            self.machine.observe()
            time.sleep(0.1)

    def output(self, stream: str) -> str:
        return (self.machine.folder / stream).read_text(errors="replace")

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ended(self, codes: set[int]) -> None:
        """Check how the search ended, and count the trials that were trained then."""
        code, errors = self.process.wait(), self.output("err")
        lines = [line for line in errors.splitlines() if "network_util" not in line]
        print(f"    ended with {code}: {(lines or [''])[-1][:300]}", flush=True)
        assert code in codes, (code, errors, self.output("out"))
        if code == 2:
            assert lines[-1].startswith("error: "), errors
            if "tune_controller" not in errors:  # Ray Tune's own log of a killed worker
                assert "Traceback" not in errors, errors
        self.count_epochs()
        for record in self.records():
            assert record.status is not Status.FAILED, (record.reason, record.traceback)
            if record.status is Status.RUNNING:
                self.interrupted[record.number] += 1

    def records(self):
        """Of the search, which is not running."""
        if not (self.study / "study.json").exists():
            return []
        folder = self.machine.folder / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in self.study.glob("study.*"):
            shutil.copy(path, folder)
        return load_records(folder)

    def count_epochs(self) -> int:
        """Read what is new in the logs; returns the epochs that they name in all."""
        for path in self.study.glob("trials/*/log.txt"):
            with open(path, "rb") as file:
                file.seek(self.read_until.get(path, 0))
                text = file.read()
            text = text[: text.rfind(b"\n") + 1]
            self.read_until[path] = self.read_until.get(path, 0) + len(text)
            self.trained.update((int(path.parent.name), int(e)) for e in EPOCH.findall(text))
        return self.trained.total()

    def epochs_of(self, trial: int) -> int:
        return sum(times for (number, _), times in self.trained.items() if number == trial)

    # -- faults -------------------------------------------------------------------------------

    def note(self, kind: str, detail: object = "") -> None:
        self.number += 1
        self.counts[kind] += 1
        print(f"{time.strftime('%H:%M:%S')} {self.number:2d} {kind} {detail}", flush=True)
        if self.outage and self.number > self.outage_until:
            self.end_outage()

    def before_start(self, kind: str) -> None:
        if kind == "clock back":
            self.machine.shift += 24 * 3600
            self.note(kind, f"by {self.machine.shift / 3600:.0f} hours")
            return
        files = {
            "damaged checkpoint": [
                path
                for record in self.records()
                if not record.status.ended
                and self.restarts[record.number] < MAX_CHECKPOINTS_DAMAGED
                and (path := self.study / f"trials/{record.number:04d}/last.pt").exists()
            ],
            "damaged log": list(self.study.glob("trials/*/log.txt")),
            "damaged contents": list(self.study.glob("image_files.npz")),
        }.get(kind) or [*self.study.glob("cache/*/*.*")]
        if not files:
            self.note(kind, "(there is none yet)")
            return
        path = self.rng.choice(sorted(files))
        content = bytearray(path.read_bytes())
        if not content or self.rng.random() < 0.5:
            how, content = "cut off", content[: self.rng.randrange(len(content) or 1)]
        else:
            how = "bytes flipped"
            for _ in range(self.rng.randint(1, 20)):
                content[self.rng.randrange(len(content))] ^= self.rng.randint(1, 255)
        path.write_bytes(content)
        if path.name == "log.txt":
            self.read_until[path] = len(content)
        if path.name == "last.pt":
            self.restarts[int(path.parent.name)] += 1
        self.note(kind, f"{path.relative_to(self.study)}: {how}")

    def workers(self) -> dict[int, int]:
        """Trials that may be disturbed now → ids of the processes that train them. A worker that
        dies twice without an epoch in between is a failure of its trial."""
        self.count_epochs()
        alive, found = self.machine.observe(), {}
        for path in self.study.glob("trials/*/log.txt"):
            ids = WORKER.findall(path.read_bytes())
            trial = int(path.parent.name)
            if ids and int(ids[-1]) in alive:
                found[int(ids[-1])] = max(found.get(int(ids[-1]), -1), trial)
        return {
            trial: pid
            for pid, trial in found.items()
            if trial not in self.killed_at or self.epochs_of(trial) > self.killed_at[trial] + 2
        }

    def at_some_moment(self, kind: str) -> None:
        """Wait until a few more epochs are trained, or, often, any time during the start."""
        epochs, target = self.rng.choice((0, 1, 2, 4)), self.count_epochs()
        if epochs or kind == "MLflow outage" or not self.study.exists():
            self.wait(lambda: self.count_epochs() >= target + max(epochs, 1))
            assert not self.machine.listening_elsewhere()
        else:
            until = time.monotonic() + self.rng.uniform(0, 8)
            self.wait(lambda: time.monotonic() > until)

    def during(self, kind: str) -> None:
        while True:  # an earlier fault may end the search, too
            if not self.running():
                if self.process is not None and self.process.returncode is not None:
                    self.end_outage()
                self.start()
            self.at_some_moment(kind)
            if kind == "killed worker":
                self.wait(self.workers)
            if kind in ("killed raylet", "killed gcs_server"):
                self.wait(lambda: kind.split()[1] in map(name, self.machine.observe()))
            if self.running():
                break
            self.ended({2})
        pids = self.machine.observe()
        if kind == "killed worker":
            trial, pid = self.rng.choice(sorted(self.workers().items()) or [(None, None)])
            self.note(kind, f"of trial {trial}, process {pid}")
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.killed_at[trial] = self.epochs_of(trial)
                self.interrupted[trial] += 1
        elif kind == "stopped process":
            pid, seconds = self.rng.choice(pids), self.rng.uniform(1, 3)
            self.note(kind, f"{pid} {name(pid)} for {seconds:.1f} s")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                until = time.monotonic() + seconds
                self.wait(lambda: time.monotonic() > until)
                os.kill(pid, signal.SIGCONT)
        elif kind == "MLflow outage":
            self.end_outage()
            self.outage_until = self.number + 1 + self.rng.randint(1, 3)
            self.outage = sqlite3.connect(
                self.machine.folder / "mlflow.db", timeout=60, isolation_level=None
            )
            self.outage.execute("BEGIN EXCLUSIVE")
            self.note(kind, f"until fault {self.outage_until}")
        else:
            self.end_by(kind, pids)

    def end_by(self, kind: str, pids: list[int]) -> None:
        self.note(kind)
        if kind == "full disk":
            filler = self.machine.runs / "filler"
            with pytest.raises(OSError) as full, open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**16))
            assert full.value.errno == errno.ENOSPC
            self.wait(lambda: False, 180)
            filler.unlink()
        elif kind.startswith("SIG"):
            self.process.send_signal(getattr(signal, kind))
        else:
            target = kind.split()[1]
            pid = self.process.pid
            if target != "search":
                pid = next(pid for pid in pids if name(pid) == target)
            os.kill(pid, signal.SIGKILL)
        self.wait(lambda: False, 180)
        self.ended(ENDS[kind])

    def end_outage(self) -> None:
        if self.outage:
            self.outage.close()
            self.outage = None


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def expected_trials(path: Path) -> list[tuple[str, dict]]:
    """Design and parameters of each trial of the search, without training any."""
    space = SearchSpace.load(path)
    proposer = Proposer(space, "random", seed=3)
    records = [baseline(space).record(0, space.objective, source="baseline")]
    while sum(r.status is not Status.INFEASIBLE for r in records) <= TRIALS:
        proposal = next_proposal(space, proposer, records)
        records.append(proposal.record(len(records), space.objective))
    return [(r.design, r.params) for r in records]


@pytest.mark.faults
def test_fifty_random_faults_lose_and_repeat_nothing(machine, tiny_space, tmp_path):
    tiny_space.write_text(tiny_space.read_text().replace("[1, 2]", RUNGS))
    seed, begun = int(os.environ.get("FAULT_SEED", 0)), time.monotonic()
    print(f"\nFAULT_SEED={seed}")
    rng = random.Random(seed)
    search = FaultySearch(machine, rng)
    kinds = [kind for kind in ENDS if machine.isolated or kind != "full disk"]
    for down, live in plan(rng, kinds):
        for kind in down:
            search.before_start(kind)
        for kind in live:
            search.during(kind)
    assert search.number == FAULTS
    search.end_outage()
    for _ in range(3):  # what the last faults damaged may end one
        search.start()
        search.wait(lambda: False, 900)
        if search.process.returncode == 0:
            break
        search.ended({2})
    assert search.process.returncode == 0, search.output("err")

    search.count_epochs()
    records = search.records()
    assert [r.number for r in records] == list(range(len(records)))
    assert [(r.design, r.params) for r in records] == expected_trials(tiny_space)
    assert {r.status for r in records} <= {Status.COMPLETED, Status.PRUNED, Status.INFEASIBLE}
    repeated = Counter[int]()
    for record in records:
        assert [e.epoch for e in record.epochs] == list(range(1, len(record.epochs) + 1))
        for epoch in record.epochs:
            repeated[record.number] += search.trained[record.number, epoch.epoch] - 1
        if not search.restarts[record.number]:
            assert repeated[record.number] <= search.interrupted[record.number], record.number

    shutil.copytree(machine.runs, tmp_path / "ended")  # damage to what is the truth is refused
    for file in ("study.json", "study.db"):
        path = tmp_path / "ended" / "one" / file
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=re.escape(file)) as refused:
            Study.open(tmp_path / "ended", "one")
        assert "\n" not in str(refused.value)
        path.write_bytes(whole)
    for command in ("nas.sync", "analysis.choose"):
        assert machine.start(command, "--study", "one").wait(300) == 0, search.output("err")
    check_mlflow(tmp_path, len(records))
    until = time.monotonic() + 90
    while machine.alive():
        assert time.monotonic() < until, [(pid, name(pid)) for pid in machine.alive()]
        time.sleep(0.2)
    whole = sum(n for trial, n in repeated.items() if not search.restarts[trial])
    print(
        f"{FAULTS} faults ({', '.join(f'{n} × {kind}' for kind, n in search.counts.items())}), "
        f"{search.starts} starts, {len(records)} trials, {whole} epochs repeated by "
        f"{search.interrupted.total()} interruptions of trials, {sum(repeated.values()) - whole} "
        f"after {search.restarts.total()} damaged checkpoints; "
        f"{time.monotonic() - begun:.0f} s"
    )


def check_mlflow(folder: Path, trials: int) -> None:
    """MLflow has one run of the study, and each trial once."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (parent,) = [run.info.run_id for run in runs if run.data.tags["role"] == "study"]
    numbers = [
        (int(run.data.tags["trial"]), run.data.tags["mlflow.parentRunId"])
        for run in runs
        if run.data.tags["role"] == "trial"
    ]
    assert sorted(numbers) == [(number, parent) for number in range(trials)]
