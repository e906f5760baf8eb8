"""A whole search: its machines, study, Ray and MLflow, as `nas.search` and `nas.api` start it."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext

from nas.engine.open_study import open_study
from nas.engine.options import SearchOptions
from nas.search_space.named import load_space
from nas.tracking.runs import tracked_search
from trials.compute.resources import Node, shares_of, this_machine
from trials.plugins import check_plugins
from trials.tracking.mlflow_store import check_store


def start_search(options: SearchOptions, dry_run: bool = False) -> dict:
    """Search, or resume a search, and print its progress and result.

    Args:
        dry_run: only print the first designs and the estimated time.

    Returns:
        What --json writes.

    Raises:
        UserError: an option, a file or the images are wrong, or the search cannot go on.
    """
    if options.resume and options.study is not None:
        check_plugins(options.runs_dir / options.study)  # the space may need them
    space = load_space(options.space, options.budget)
    from nas.engine.disk_space import report_disk_full
    from nas.engine.run_search import resume_command, resume_hint, run_search, start_ray

    with ExitStack() as stack:
        shares = shares_of(
            stack.enter_context(_machines(options)),
            device=options.device,
            cpus=options.cpus_per_trial,
            gpus=options.gpus_per_trial,
            concurrency=options.concurrency,
            stopwatch=space.measures_latency,
            cluster=bool(options.address),
        )
        if dry_run:
            from nas.engine.dry_run import dry_run as show_first_designs

            return show_first_designs(space, options, shares)
        check_store(options.tracking_uri, space.name)  # before a study is created
        study, data = open_study(options, space, on_gpus=shares.gpus > 0)
        stack.enter_context(study.writing())
        trials = options.trials or study.manifest.trials
        resume = resume_command(options, study.name, trials)
        stack.enter_context(resume_hint(resume))
        stack.enter_context(report_disk_full(study.folder, resume))
        ray_ready = stack.enter_context(start_ray(options, shares))
        tracker = stack.enter_context(tracked_search(options.tracking_uri, study.folder))
        studied = space.on(data, study.manifest.proxies)
        return run_search(options, study, studied, data, tracker, shares, ray_ready)


def _machines(options: SearchOptions) -> AbstractContextManager[list[Node]]:
    """The machines to train on: the nodes of a cluster (connected until exit), or this one."""
    if options.address:
        from trials.compute.cluster import connected

        return connected(options.address)
    return nullcontext([this_machine(options.device)])
