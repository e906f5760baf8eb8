"""--dry-run: the first designs of a search, their cost, and its estimated time on this machine.

The designs are proposed as `nas.engine.driver.Driver` does it, from the same records, as long as no
result of training can have changed a proposal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from nas.engine.open_study import DEFAULT_TRIALS, choose_proxies
from nas.engine.options import SearchOptions
from nas.search_space.space import SearchSpace
from trials.compute.resources import Shares

if TYPE_CHECKING:
    from detector.config.detector import Detector
    from detector.config.recipe import Recipe
    from detector.data.open import Data
    from nas.engine.gate import Proposal

PRINTED_DESIGNS = 10
"""At most: those that do not depend on results."""
SAMPLED_DESIGNS = 50
"""Feasible designs whose mean cost is that of the search."""
TIMED_STEPS = 3


def dry_run(space: SearchSpace, options: SearchOptions, shares: Shares) -> dict:
    """Print the first designs and the estimated time; writes nothing.

    The time follows from a few training steps of the baseline on this machine, scaled by MACs.

    Returns:
        The same as plain data, for --json.
    """
    from detector.data.open import open_data, resolve_data
    from detector.metrics.face_counts import check_faces
    from nas.engine.enqueued import read_queue
    from nas.engine.gate import baseline, check_feasible, next_proposal
    from nas.engine.halving import epochs_expected
    from nas.engine.warm_start import WarmStart
    from nas.samplers.base import informative_trials
    from nas.samplers.proposer import DEFAULT, SAMPLERS, Proposer
    from nas.terminal.format import count, duration
    from trials.compute.bench import SECONDS, Bench
    from trials.record import Cost, Status

    if options.resume:
        raise UserError("--dry-run shows the start of a new search; leave --resume out")
    check_feasible(space)
    path, line = resolve_data(options.data)
    print(line)
    data = open_data(replace(options.data_choice, path=path))
    for note in check_faces(data.train, data.selection, path):
        print(f"note: {note}")
    space = space.on(data, choose_proxies(options, space, data, shares.gpus > 0))
    if options.scheduler == "none":
        space = replace(space, rungs=space.rungs[-1:])
    trials = options.trials or DEFAULT_TRIALS
    sampler = options.sampler or DEFAULT
    by_results = SAMPLERS[sampler].is_asked(0)  # from the first design on
    if by_results:
        print(f"{sampler} chooses each design by what is known then; the space has such designs:")
    proposer = Proposer(space, "random" if by_results else sampler, seed=options.seed)
    queue = read_queue(options, space, data)
    warm_start = WarmStart(space, options.runs_dir, queue)  # only proposes, so no folder is written
    first = baseline(space)
    records = [warm_start.start_record(first.record(0, space.objective, source="baseline"), [])]
    baseline_detector, baseline_recipe = space.baseline
    baseline_cost = Cost.of(baseline_detector)
    macs: list[int] = []
    designs: list[Proposal] = []
    print(first.line(0, "baseline"))
    while len(macs) < min(trials, SAMPLED_DESIGNS):
        queued = warm_start.next_proposal(records)
        try:
            proposal = queued or next_proposal(space, proposer, records)
        except UserError as error:  # the space is exhausted, which ends a search normally
            if not macs:
                raise
            print(f"note: {error}")
            trials = len(macs)
            break
        # The sampler is asked once enough of the earlier trials have a result.
        results = len(informative_trials(records))
        independent = queued or by_results or not SAMPLERS[sampler].is_asked(results)
        if independent and len(designs) == len(records) - 1 < PRINTED_DESIGNS:
            designs.append(proposal)
            print(proposal.line(len(records)))
        record = proposal.record(len(records), space.objective)
        records.append(warm_start.start_record(record, records))
        if proposal.violation is None:
            macs.append(proposal.cost.macs)
    if not by_results and len(designs) < min(len(records) - 1, PRINTED_DESIGNS):
        print(f"from trial {len(designs) + 1} on, {sampler} goes by the results of earlier trials")
    infeasible = sum(r.status is Status.INFEASIBLE for r in records)
    baseline_seconds = _baseline_epoch_seconds(baseline_detector, baseline_recipe, data)
    mean_macs = sum(macs) / len(macs)
    # About 0.6 of the time grows with MACs; loading, assignment and post-processing do not.
    epoch_seconds = baseline_seconds * (0.4 + 0.6 * mean_macs / baseline_cost.macs)
    reused = sum(entry.known is not None for entry in queue.entries[:trials])
    epochs = epochs_expected(trials - reused, space.rungs, space.eta)
    total_seconds = epochs * epoch_seconds / shares.concurrency
    if space.measures_latency:
        bench = Bench(baseline_detector, shares.device)
        print(
            f"the baseline takes {bench.baseline_ms():.1f} ms per image here ({bench.machine()}); "
            f"each design is timed when it is sampled, in about {SECONDS:.0f} s"
        )
        total_seconds += trials * SECONDS
    print(
        f"of {len(records) - 1} designs, proposed as if no results came in, {infeasible} are "
        f"infeasible; the others have {count(mean_macs)} MACs on average\nrungs at epochs "
        f"{', '.join(map(str, space.rungs))}; an epoch of the baseline takes "
        f"{baseline_seconds:.1f} s here\nestimated time for {trials} trials, "
        f"{shares.concurrency} at once: {duration(total_seconds)}, and about half a minute to "
        "start and to report"
    )
    return {
        "trials": trials,
        "designs": [
            {"number": number, "params": p.params, "design": p.design, "violation": p.violation}
            for number, p in enumerate(designs, 1)
        ],
        "infeasible_share": infeasible / (len(records) - 1),
        "mean_macs": mean_macs,
        "baseline_epoch_seconds": baseline_seconds,
        "estimated_seconds": total_seconds,
    }


def _baseline_epoch_seconds(detector: Detector, recipe: Recipe, data: Data) -> float:
    """Time of an epoch of the baseline's proxy on one thread, from a few steps.

    Of two short epochs the second is timed, as the first one includes the set-up.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from detector.data.cache import cache_images
    from detector.data.splits import Subset
    from detector.training.fit import fit

    torch.set_num_threads(1)
    count = min(len(data.train), TIMED_STEPS * recipe.batch_size)
    subset = Subset(data.train, range(count), "a few images")
    with TemporaryDirectory() as folder:
        cached = cache_images(subset, Path(folder), recipe.cache_size)
        *_, last = fit(
            detector, recipe, cached, None, workdir=Path(folder) / "fit", until=2, device="cpu"
        )
    return last.seconds * len(data.train) / last.images
