"""A search from its study to its summary: the driver, and Ray, which trains its segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from detector.base.cli import PartialFailure
from detector.base.errors import UserError
from nas.engine.enqueued import Queue
from nas.engine.open_study import IN_DATA, IN_MANIFEST, shared_images
from nas.engine.options import SearchOptions
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.compute.resources import Shares
from trials.folders import CACHE, CONTENTS
from trials.hints import command
from trials.plugins import copied_plugins
from trials.record import MIN_AP, best_of
from trials.stored import PROGRESS, ProgressFile
from trials.tracking.tracker import Tracker

if TYPE_CHECKING:
    from detector.data.open import Data
    from nas.engine.driver import Driver, TrialSetup
    from trials.compute.cluster import Stopwatch


def run_search(
    options: SearchOptions,
    study: Study,
    space: SearchSpace,
    data: Data,
    tracker: Tracker,
    shares: Shares,
    ray_ready: Callable[[], None],
) -> dict:
    """Search until nothing is left to train.

    Args:
        space: for these images (`SearchSpace.on`).
        ray_ready: waits until Ray has started.

    Returns:
        The result as plain data, for --json.

    Raises:
        UserError: the search cannot continue; nothing is lost.
        PartialFailure: too many trials failed, but others are completed; or no design has learned
            anything.
    """
    from nas.engine.driver import MAX_FAILURES, Driver
    from nas.engine.earlier_studies import stored_prior
    from nas.engine.warm_start import WarmStart
    from nas.samplers.proposer import Proposer
    from nas.study.summary import search_result, summarise

    manifest = study.manifest
    if manifest.scheduler == "none":
        space = replace(space, rungs=space.rungs[-1:])
    stopwatch = _stopwatch(study, space)
    driver = Driver(
        study,
        space,
        tracker,
        Proposer(
            space, manifest.sampler, seed=manifest.seed, prior=stored_prior(study.folder, manifest)
        ),
        trial_setup(study, space, data, shares),
        trials=options.trials or manifest.trials,
        stopwatch=stopwatch,
        max_failures=MAX_FAILURES if options.max_failures is None else options.max_failures,
        warm_start=WarmStart(
            space, study.folder, Queue.read(study.folder, manifest), inherit=manifest.inherit
        ),
    )
    driver.view.update_all()  # a search that was killed may not have reported everything
    if manifest.inherit:
        print(
            "note: trials inherit weights from the nearest trained design, but the baseline starts "
            "from scratch, so the two are not comparable at equal epochs"
        )
    progress = study.folder / PROGRESS
    if not driver.finished() and driver.stop_reason() is None:
        ProgressFile(ended=False).write(progress)
        ray_ready()
        _train(driver, options, shares, stopwatch)
    if error := driver.stop_reason():
        ProgressFile(ended=True).write(progress)
        if best_of(driver.records) is None:
            raise error
        raise PartialFailure(str(error), summarise(study, driver.view, context(options, study)))
    driver.close()
    rounds_follow = options.rounds > 1 and best_of(driver.records) is not None
    ProgressFile(ended=not rounds_follow).write(progress)
    if driver.exhausted:
        print(f"note: {driver.exhausted}")
    if best_of(driver.records) is None:
        raise PartialFailure(
            f"study {study.name}: none of its designs has learned anything (AP of all levels below "
            f"{MIN_AP:g}, or a loss that grew), so there is no best one; check the labels, give "
            "the proxies more epochs, images or pixels, or lower the learning rate",
            search_result(study),
        )
    return summarise(study, driver.view, context(options, study))


def _train(
    driver: Driver, options: SearchOptions, shares: Shares, stopwatch: Stopwatch | None
) -> None:
    """Run the driver's segments on Ray."""
    from nas.engine.search_progress import SearchProgress
    from trials.compute.local_ray import RayDied, ended_without_gcs
    from trials.compute.trainable import run_on_ray

    study = driver.study
    driver.reopen()
    if options.address:
        from trials.compute.cluster import check_nodes

        check_nodes([study.folder])
    progress = SearchProgress(driver, folder=study.folder)

    def tick() -> None:
        driver.check()
        progress.tick()

    hint = f"nothing is lost, resume with: {resume_command(options, study.name, driver.trials)}"
    try:
        with ended_without_gcs(hint):
            run_on_ray(
                driver,
                shares,
                scratch=study.folder if options.address else None,
                stopwatch=stopwatch,
                tick=tick,
            )
    except RayDied as error:
        raise UserError(f"study {study.name}: {error}; {hint}") from error
    finally:
        progress.close()
    if not driver.finished() and driver.stop_reason() is None:
        raise UserError(f"study {study.name}: Ray ended before the search did; {hint}")


@contextmanager
def resume_hint(resume: str) -> Iterator[None]:
    """Tells how to resume a search that is stopped, once everything it started has ended."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. Resume with:\n  {resume}", flush=True)
        raise


def trial_setup(study: Study, space: SearchSpace, data: Data, shares: Shares) -> TrialSetup:
    """What all trials share; the images are decoded once per study."""
    from detector.data.contents import save_contents
    from nas.engine.disk_space import prepare_images
    from nas.engine.driver import TrialSetup

    train, holdout = prepare_images(shared_images(space, data), study.folder / CACHE, shared=True)
    contents = study.folder / CONTENTS
    if not contents.exists():
        save_contents(contents, [data.train, data.selection])
    return TrialSetup(
        train=train.folder, holdout=holdout.folder, device=shares.device, threads=shares.cpus
    )


def start_ray(options: SearchOptions, shares: Shares) -> AbstractContextManager:
    """Start Ray in the background while the rest is prepared; yields a function that waits for it.

    A resumed search may have nothing left to train, so Ray is not started yet.
    """
    if options.resume:
        return nullcontext(lambda: None)
    import trials.compute.trainable  # noqa: F401  (before two threads import parts of Ray)
    from trials.compute.cluster import starting

    return starting(shares)


def _stopwatch(study: Study, space: SearchSpace) -> Stopwatch | None:
    """Measures the latency of designs relative to the baseline's; None if it is not needed."""
    if not space.measures_latency:
        return None
    from trials.compute.cluster import Stopwatch

    records = study.records
    plugins = copied_plugins(study.folder)
    return Stopwatch(space.baseline[0], records[0].cost if records else None, plugins)


def context(options: SearchOptions, study: Study) -> dict[str, object]:
    """The flags of the commands that follow a search."""
    flags = {name: options.flags.get(name) for name in ("data", "device")}
    if flags["data"] == study.manifest.data.path:  # the default of those commands
        del flags["data"]
    return {
        "study": study.name,
        "runs_dir": options.runs_dir,
        "tracking_uri": options.tracking_uri,
        **flags,
    }


def resume_command(options: SearchOptions, study: str, trials: int) -> str:
    """The command that resumes a search, with the flags that the study does not hold itself."""
    flags: dict[str, object] = {"space": options.space, "runs_dir": options.runs_dir}
    flags |= {name: value for name, value in options.flags.items() if name not in _STORED_FLAGS}
    return command("nas.search", flags | {"trials": trials, "study": study, "resume": True})


_STORED_FLAGS = (*IN_MANIFEST, *IN_DATA, "enqueue", "from_study", "inherit", "no_prior")
