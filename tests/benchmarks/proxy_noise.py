"""How much of a proxy's score is noise, and which way of measuring has the least.

Trains some designs of a search space with several seeds, and at every look evaluates the same
weights in several ways: with running averages (raw), with statistics of batch normalisation from
the last training crops (last) or from images as they are evaluated (whole), and as an EMA of the
weights. Results are appended to a JSON Lines file, so that an
interrupted run is resumed by the same command; --summary prints the table.

  python tests/benchmarks/proxy_noise.py --out noise.jsonl --data data/widerface
  python tests/benchmarks/proxy_noise.py --out noise.jsonl --summary
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.config.detector import Detector
from detector.config.recipe import DataChoice, Recipe
from detector.data.cache import cache_images
from detector.data.loader import Batch
from detector.data.open import open_data
from detector.data.types import ImageSet
from detector.inference.predict import evaluate
from detector.training.distributed import this_worker
from detector.training.ema import ModelEMA
from detector.training.epoch import EpochSteps
from detector.training.feed import Feed
from detector.training.precise_bn import calibrate, recalibrate_batchnorm
from detector.training.state import start_or_resume
from detector.training.stepper import Stepper
from nas.engine.gate import baseline, evaluate_cost
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace

LOOKS = (2, 4, 6, 8, 10, 12)
SPREAD = 0.1
"""A design that ends this share below its best look was measured badly, then or before."""
CROPS = 384
"""Training crops for the statistics that are called last: the last ones of the epoch."""


class RecentBatches:
    """A feed that keeps the last images of each epoch."""

    def __init__(self, feed: Feed, recipe: Recipe):
        self._feed = feed
        self.images: deque[Tensor] = deque(maxlen=-(-CROPS // recipe.batch_size))

    def epoch(self, epoch: int, shard: tuple[int, int]) -> Iterator[list[Batch]]:
        for parts in self._feed.epoch(epoch, shard):
            self.images.extend(part.images for part in parts)
            yield parts


def train_and_measure(
    config: Detector,
    recipe: Recipe,
    train: ImageSet,
    holdout: ImageSet,
    decays: list[float],
    looks: tuple[int, ...],
) -> dict[int, dict[str, float]]:
    """Mean AP by look and way."""
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        state = start_or_resume(config, recipe, Path(folder) / "last.pt", device, None)
    averages = {decay: ModelEMA(state.model, decay) for decay in decays}

    class Averages:
        def update(self, model: nn.Module) -> None:
            for average in averages.values():
                average.update(model)

    state.ema = Averages()  # type: ignore[assignment]
    feed = RecentBatches(Feed(train, recipe, device, 0), recipe)
    stepper = Stepper(state.model, state.optimizer, config, recipe, state.precision)
    found: dict[int, dict[str, float]] = {}
    for epoch in range(1, recipe.epochs + 1):
        steps = EpochSteps(epoch, len(train), recipe, recipe.epochs, None)
        steps.run(state, feed, stepper, this_worker())  # type: ignore[arg-type]
        if epoch not in looks:
            continue
        models = {"model": state.model} | {f"ema{d:g}": a.module for d, a in averages.items()}
        found[epoch] = {}
        for name, model in models.items():
            for source in ("raw", "last", "whole"):
                if source == "raw" and name != "model":
                    continue
                if source == "last":
                    recalibrate_batchnorm(model, feed.images, recipe, state.precision)
                if source == "whole":
                    calibrate(model, train, recipe, state.precision)
                model.eval()
                with state.precision.autocast:
                    ap = evaluate(model, config, holdout, recipe.evaluation, device)
                found[epoch][f"{name} {source}"] = sum(ap.values()) / len(ap)
        found[epoch]["loss"] = steps.mean_losses()["total"]
    return found


def designs(space: SearchSpace, count: int, max_macs: float) -> list[tuple[str, Detector, Recipe]]:
    """The baseline and random designs, one for each pair of backbone and head."""
    from trials.names import describe

    first = baseline(space)
    chosen = [(describe(first.detector), first.detector, first.recipe)]
    pairs = {(first.params.get("backbone"), first.params.get("head"))}
    attempt = 0
    while len(chosen) < count and attempt < 10_000:
        proposal = evaluate_cost(space, space.suggest(RandomTrial(attempt)))
        attempt += 1
        pair = (proposal.params.get("backbone"), proposal.params.get("head"))
        if proposal.violation or proposal.cost.macs > max_macs or pair in pairs:
            continue
        pairs.add(pair)
        chosen.append((describe(proposal.detector), proposal.detector, proposal.recipe))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--space", type=Path, default=Path("search_spaces/retina.yaml"))
    parser.add_argument("--designs", type=int, default=6)
    parser.add_argument("--max-macs", type=float, default=0.8e9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, help="instead of the sampled ones")
    parser.add_argument("--ema", type=float, nargs="*", default=[0.95, 0.98])
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    if args.summary:
        summarize([json.loads(line) for line in args.out.read_text().splitlines()])
        return
    torch.set_num_threads(1)
    done = set()
    if args.out.exists():
        rows = [json.loads(line) for line in args.out.read_text().splitlines()]
        done = {(row["data"], row["design"], row["seed"]) for row in rows}
    data = open_data(DataChoice(path=args.data))
    space = SearchSpace.load(args.space).on(data)
    name = "built-in" if args.data == "synthetic" else "WIDER"
    looks = tuple(look for look in LOOKS if look <= args.epochs)
    with tempfile.TemporaryDirectory() as folder:
        first = space.baseline[1]
        train = cache_images(data.train, Path(folder), first.cache_size)
        holdout = cache_images(data.holdout, Path(folder), first.evaluation.size)
        for seed in range(args.seeds):
            for title, config, recipe in designs(space, args.designs, args.max_macs):
                if (name, title, seed) in done:
                    continue
                recipe = replace(recipe, seed=seed, epochs=args.epochs)
                if args.lr:
                    recipe = replace(recipe, optimizer=replace(recipe.optimizer, lr=args.lr))
                started = time.perf_counter()
                found = train_and_measure(config, recipe, train, holdout, args.ema, looks)
                row = {
                    "data": name,
                    "design": title,
                    "seed": seed,
                    "looks": found,
                    "seconds": round(time.perf_counter() - started, 1),
                }
                with args.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(name, seed, title, row["seconds"], found[looks[-1]], flush=True)


def summarize(rows: list[dict]) -> None:
    """For each way: the deviation between seeds at every look, and how many end badly."""
    for name in sorted({row["data"] for row in rows}):
        own = [row for row in rows if row["data"] == name]
        groups = defaultdict(list)
        for row in own:
            groups[row["design"]].append(row["looks"])
        looks = sorted(map(int, own[0]["looks"]))
        print(f"\n{name}: {len(groups)} designs, {len(own)} trainings")
        print("way            " + "".join(f"  ep{look:<3} sd   " for look in looks) + "  badly")
        for way in [key for key in own[0]["looks"][str(looks[0])] if key != "loss"]:
            cells = []
            for look in looks:
                values = [[run[str(look)][way] for run in runs] for runs in groups.values()]
                mean = statistics.mean(v for group in values for v in group)
                variances = [statistics.variance(v) for v in values if len(v) > 1]
                sd = math.sqrt(statistics.mean(variances)) if variances else math.nan
                cells.append(f" {mean:.3f} {sd:.3f} ")
            bad = sum(
                row["looks"][str(looks[-1])][way]
                < (1 - SPREAD) * max(row["looks"][str(look)][way] for look in looks)
                for row in own
            )
            print(f"{way:14s} " + "".join(cells) + f"  {bad}/{len(own)}")


if __name__ == "__main__":
    main()
