"""A study of 10,000 trials: the next proposal of each sampler, resuming, and choosing; of one core.

Everything is measured in CPU seconds, in a process of its own, without imports.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from nas.samplers.proposer import DEFAULT, SAMPLERS

PROJECT = Path(__file__).resolve().parents[2]
TRIALS = 10_000
pytestmark = pytest.mark.benchmark

COMMON = """
import json, sys, time
from pathlib import Path
from analysis.records.load import load_records
from nas.search_space.space import SPACES, SearchSpace
folder, sampler = Path(sys.argv[1]), sys.argv[2]
space = SearchSpace.load(SPACES / "retina.yaml")
def peak_gb():  # getrusage's includes the parent's memory at the fork
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / 1e9
"""

PROPOSALS = """
from nas.engine.gate import next_proposal
from nas.samplers.proposer import Proposer
records = load_records(folder)
Proposer(space, sampler).update(records[:100])  # imports
proposer = Proposer(space, sampler)
proposer.update(records[:100])
proposer.ask()
proposer = Proposer(space, sampler)
seconds = []
for count in range(len(records) - 6, len(records) + 1):
    started = time.process_time()
    next_proposal(space, proposer, records[:count])
    seconds.append(time.process_time() - started)
print(json.dumps({"seconds": seconds, "gb": peak_gb()}))
"""

RESUME = """
sys.path.append("tests")
import helpers, optuna, numpy, scipy.optimize
import nas.engine.driver, nas.samplers.frugal
from nas.engine.gate import next_proposal
from nas.study.storage import Study
started = time.process_time()
study = Study.open(folder.parent, folder.name)
with study.writing():
    driver = helpers.driver(folder, space, study=study, sampler=sampler, trials=20_000)
    driver.view.update_all()
    assert not driver.finished() and driver.stop_reason() is None
    driver.reopen()
    driver._promotable(driver.records)
    next_proposal(space, driver._proposer, driver.records)
print(json.dumps({"seconds": time.process_time() - started, "gb": peak_gb()}))
"""

CHOOSE = """
import optuna, scipy.stats
from analysis import choose
started = time.process_time()
choose.run(choose.make_parser().parse_args(["--runs-dir", str(folder.parent)]))
print(json.dumps({"seconds": time.process_time() - started, "gb": peak_gb()}))
"""


@pytest.fixture
def folder(generated_study):
    return generated_study("long", TRIALS)


def measure(script: str, folder: Path, sampler: str = "random") -> dict:
    output = subprocess.run(
        [sys.executable, "-c", COMMON + script, str(folder), sampler],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=600,
    ).stdout
    return json.loads(output.splitlines()[-1])


def test_a_proposal_takes_1_s_and_1_gb(folder):
    slow = []
    for sampler in SAMPLERS:
        used = measure(PROPOSALS, folder, sampler)
        first, *others = used["seconds"]
        median = statistics.median(others)
        print(
            f"{sampler}: {median:.2f} s, {max(others):.2f} at most, the first after a resume "
            f"{first:.2f} s; {used['gb']:.2f} GB"
        )
        if median > 1 or used["gb"] > 1:
            slow.append(sampler)
    assert not slow


def test_a_search_resumes_within_10_s(folder):
    used = measure(RESUME, folder, DEFAULT)
    print(f"{used['seconds']:.1f} s to the first proposal of {DEFAULT}, {used['gb']:.2f} GB")
    assert used["seconds"] <= 10


def test_choose_takes_5_s(folder):
    used = measure(CHOOSE, folder)
    print(f"{used['seconds']:.1f} s, {used['gb']:.2f} GB")
    assert used["seconds"] <= 5
