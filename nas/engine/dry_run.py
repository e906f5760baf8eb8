"""--dry-run: the first designs of a search, their cost, and the time it would take here."""

from __future__ import annotations

from dataclasses import replace

from nas.engine.open_study import TRIALS
from nas.engine.options import SearchOptions
from nas.search_space.space import SearchSpace
from trials.compute.resources import Shares

SHOWN = 10
DRAWN = 50  # for the mean cost
STEPS = 3  # timed


def dry_run(space: SearchSpace, options: SearchOptions, shares: Shares) -> dict:
    """Print the first designs and an estimate; nothing is written.

    The time is scaled by MACs from a few timed training steps of the baseline on this machine.
    """
    from detector.data.open import open_data, resolve_data
    from nas.engine.enqueued import read_queue
    from nas.engine.gate import baseline, check_feasible, next_proposal
    from nas.engine.halving import epochs_expected
    from nas.engine.warm_start import WarmStart
    from nas.samplers.proposer import DEFAULT, Proposer
    from nas.terminal.format import count, duration
    from trials.compute.bench import SECONDS, Bench
    from trials.record import Cost, TrialRecord

    check_feasible(space)
    path, line = resolve_data(options.data)
    print(line)
    data = open_data(replace(options.data_choice, path=path))
    space = space.on(data)
    if options.scheduler == "none":
        space = replace(space, rungs=space.rungs[-1:])
    trials = options.trials or TRIALS
    proposer = Proposer(space, options.sampler or DEFAULT, seed=options.seed)
    queue = read_queue(options, space, data)
    warm = WarmStart(space, options.runs_dir, queue)  # nothing of it trains, nor is written
    records: list[TrialRecord] = []
    base_detector, base_recipe = space.baseline
    base = Cost.of(base_detector)
    macs: list[int] = []
    infeasible = 0
    print(baseline(space).line(0, "baseline"))
    while len(macs) < min(trials, DRAWN):
        proposal = warm.next(records) or next_proposal(space, proposer, records)
        legal = proposal.violation is None
        records.append(proposal.record(len(records), space.objective))
        infeasible += not legal
        if legal:
            macs.append(proposal.cost.macs)
        if len(records) <= SHOWN:
            print(proposal.line(len(records)))
    seconds = _baseline_epoch(base_detector, base_recipe, data)
    mean = sum(macs) / len(macs)
    # about 0.6 of the time grows with MACs; loading, matching and post-processing do not
    epoch = seconds * (0.4 + 0.6 * mean / base.macs)
    known = sum(entry.known is not None for entry in queue.entries[:trials])
    total = epochs_expected(trials - known, space.rungs, space.eta) * epoch / shares.concurrency
    if space.measures_latency:
        bench = Bench(base_detector, shares.device)
        print(
            f"the baseline takes {bench.baseline_ms():.1f} ms an image here ({bench.machine()}); "
            f"each design is timed when it is drawn, in about {SECONDS:.0f} s"
        )
        total += trials * SECONDS
    print(
        f"{infeasible} of the first {len(records)} draws infeasible; mean of the others "
        f"{count(mean)} MACs\nrungs at epochs {', '.join(map(str, space.rungs))}; an epoch of the "
        f"baseline takes {seconds:.1f} s here\nestimated time for {trials} trials, "
        f"{shares.concurrency} at once: {duration(total)}"
    )
    return {
        "trials": trials,
        "infeasible_share": infeasible / len(records),
        "mean_macs": mean,
        "baseline_epoch_seconds": seconds,
        "estimated_seconds": total,
    }


def _baseline_epoch(detector, recipe, data) -> float:
    """Seconds of one epoch of the baseline's proxy on one thread, from a few steps.

    Of two short epochs the second is timed: the first one also sets things up.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from detector.data.cache import cache_images
    from detector.data.splits import Subset
    from detector.training.fit import fit

    torch.set_num_threads(1)
    few = Subset(data.train, range(min(len(data.train), STEPS * recipe.batch_size)), "a few images")
    with TemporaryDirectory() as folder:
        cached = cache_images(few, Path(folder), recipe.cache_size)
        *_, timed = fit(
            detector, recipe, cached, None, workdir=Path(folder) / "fit", until=2, device="cpu"
        )
    return timed.seconds * len(data.train) / timed.images
