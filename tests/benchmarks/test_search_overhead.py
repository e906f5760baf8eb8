"""Overhead of a search: per trial, and before the first one trains."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from detector.config.presets import load_preset
from detector.data.cache import cache_images
from detector.training.fit import fit
from trials.compute.resources import Shares
from trials.run import Segment

pytestmark = pytest.mark.benchmark
PROJECT = Path(__file__).resolve().parents[2]
TRIALS = 20


class Trained:
    """A SegmentSource of trials whose only epoch is trained already: all that remains is to send
    them to a worker, open their data and checkpoint, and take the report."""

    def __init__(self, segments):
        self._remaining, self.times = list(segments), []

    def next_segment(self):
        if not self._remaining:
            raise StopIteration
        return self._remaining.pop(0)

    def handle_report(self, report):
        assert report.ended
        assert report.failure is None, report.failure
        self.times.append(time.perf_counter())


def test_a_no_op_trial_costs_half_a_second(tmp_path, tiny_data):
    from trials.compute.trainable import run_on_ray

    detector, recipe = load_preset("retinaface_mobile025")
    recipe = replace(recipe, epochs=1, size=64, batch_size=4)
    cached = cache_images(tiny_data.train, tmp_path / "cache", 64)
    list(fit(detector, recipe, cached, None, workdir=tmp_path / "0", device="cpu"))
    for number in range(1, TRIALS):
        shutil.copytree(tmp_path / "0", tmp_path / str(number))
    source = Trained(
        Segment(
            number=number,
            detector=detector,
            recipe=recipe,
            until=1,
            evaluate_at=(1,),
            epochs_reported=0,
            workdir=str(tmp_path / str(number)),
            train=str(cached.folder),
            holdout=str(cached.folder),
            device="cpu",
        )
        for number in range(TRIALS)
    )
    run_on_ray(source, Shares(concurrency=1, cpus=1, gpus=0.0))
    assert len(source.times) == TRIALS
    spent = (source.times[-1] - source.times[0]) / (TRIALS - 1)
    print(f"\na trial without training costs {spent:.3f} s (worker reused, checkpoint loaded)")
    assert spent <= 0.5


# Runs the command, and prints as its last line when each part of it ended.
TIMED = """
import json, os, sys, time
parts, start = [], float(sys.argv.pop(1))
def ended(name):
    parts.append((name, time.time() - start))
ended("python")
import detector.data.open, nas.engine.driver
from nas import search
from nas.engine import run_search, start_search
from nas.search_space import space
from nas.terminal import cli
ended("first imports")
def part(owner, attribute, name):
    function = getattr(owner, attribute)
    def timed(*args, **kwargs):
        result = function(*args, **kwargs)
        ended(name)
        return result
    setattr(owner, attribute, timed)
part(space.SearchSpace, "load", "space")
part(start_search, "open_study", "data and study")
part(run_search, "start_ray", "imports of Ray")
part(run_search, "trial_setup", "tracker, cache")
part(nas.engine.driver.Driver, "next_segment", "rest of Ray, first design")
handle_report = nas.engine.driver.Driver.handle_report
def first_report(driver, report):
    if not any(name == "worker start" for name, _ in parts):
        parts.append(("worker start", time.time() - report.epoch.seconds - start))
    return handle_report(driver, report)
nas.engine.driver.Driver.handle_report = first_report
code = cli.main(search.make_parser(), search.run, sys.argv[1:])
print(json.dumps(parts))
sys.exit(code)
"""


def test_the_first_trial_trains_within_15_seconds(tmp_path):
    def run(study):
        command = [
            sys.executable,
            "-c",
            TIMED,
            str(time.time()),
            "--space",
            str(PROJECT / "search_spaces" / "quick.yaml"),
            "--data",
            "synthetic",
            "--fraction",
            "0.1",
            "--trials",
            "1",
            "--study",
            study,
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )
        assert done.returncode == 0, done.stderr
        parts = json.loads(done.stdout.splitlines()[-1])
        return [
            part
            for index, part in enumerate(parts)
            if part[0] not in {name for name, _ in parts[:index]}
        ]

    run("first")  # creates the cache, which is not part of the measurement
    shutil.copytree(tmp_path / "runs" / "first" / "cache", tmp_path / "runs" / "second" / "cache")
    parts, before = run("second"), 0.0
    print()
    for name, at in parts:
        print(f"  {at - before:6.2f} s  {name}")
        before = at
    print(f"  {before:6.2f} s  until the first step")
    assert parts[-1][0] == "worker start"
    assert before <= 15
