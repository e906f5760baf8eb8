"""Time, memory and size of the page of a long search's report, measured in its own process."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


# Peak memory is read in the process itself: getrusage's includes the parent's memory at the fork.
SCRIPT = """
import sys
from analysis import report
from detector.base import cli
code = cli.main(report.make_parser(), report.run)
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.mark.benchmark
def test_10_000_trials_in_60_s_1_gb_and_10_mb(generated_study, tmp_path):
    study = generated_study("big", 10_000)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            "--runs-dir",
            str(study.parent),
            "--json",
            str(tmp_path / "r.json"),
        ],
        cwd=PROJECT,
        check=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
        stdout=subprocess.PIPE,
    ).stdout
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    memory = int(output.split()[-1]) * 1024
    page = Path(json.loads((tmp_path / "r.json").read_text())["page"]).stat().st_size
    print(f"{seconds:.0f} s of CPU, {memory / 1e9:.2f} GB, page {page / 1e6:.1f} MB")
    assert seconds <= 60 and memory <= 1e9 and page <= 10e6
