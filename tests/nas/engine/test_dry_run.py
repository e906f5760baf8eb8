"""--dry-run shows the designs that the search then tries, compared without any training."""

from dataclasses import replace

import helpers
import pytest

from detector.base.errors import UserError
from detector.config.detector import arch_hash
from nas.engine import dry_run
from nas.engine.options import SearchOptions
from nas.engine.warm_start import WarmStart
from nas.samplers.proposer import SAMPLERS, Proposer
from nas.search_space.space import SPACES, SearchSpace
from trials.compute.resources import Shares
from trials.record import Status


@pytest.fixture
def shown(tmp_path, monkeypatch, tiny_data, capsys):
    """Function: space, options → the designs that a dry run lists, and its output."""
    monkeypatch.setattr(dry_run, "_baseline_epoch_seconds", lambda *args: 1.0)
    monkeypatch.setattr("detector.data.open.open_data", lambda *args, **kwargs: tiny_data)

    def run(space, **options):
        shares = Shares(cpus=1, gpus=0.0, concurrency=2)
        choices = SearchOptions(
            space="quick", runs_dir=tmp_path, data="synthetic", trials=12, **options
        )
        result = dry_run.dry_run(space, choices, shares)
        return result["designs"], capsys.readouterr().out

    return run


def tried(folder, space, sampler: str, seed: int, number: int) -> dict[int, str]:
    """The designs of the first trials of a search, infeasible ones included; none has a result."""
    driver = helpers.driver(folder, space, trials=number)
    driver._proposer = Proposer(space, sampler, seed=seed)
    driver._warm_start = WarmStart(space, driver.study.folder)
    while driver.num_sampled() < number:
        driver.next_segment()
    return {r.number: arch_hash(r.detector) for r in driver.records}


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "joint"])
@pytest.mark.parametrize("seed", [1])
def test_the_search_tries_what_was_shown(shown, tmp_path, tiny_data, sampler, seed):
    space = SearchSpace.load(SPACES / "quick.yaml").on(tiny_data)
    space = replace(space, constraints=replace(space.constraints, max_macs=500_000_000))
    designs, out = shown(space, sampler=sampler, seed=seed)
    startup = SAMPLERS[sampler].startup_trials or dry_run.PRINTED_DESIGNS
    feasible = sum(d["violation"] is None for d in designs)
    assert len(designs) == dry_run.PRINTED_DESIGNS or feasible == startup
    assert any(d["violation"] for d in designs)  # they take a number, too
    trials = tried(tmp_path / "search", space, sampler, seed, len(designs))
    assert {d["number"]: d["design"] for d in designs} == {
        number: design for number, design in trials.items() if 0 < number <= len(designs)
    }
    note = f"from trial {len(designs) + 1} on, {sampler} goes by the results"
    assert (note in out) == (len(designs) < dry_run.PRINTED_DESIGNS)
    for number in range(1, len(designs) + 1):
        assert f"\n{number:4d}  " in out


def test_designs_that_all_depend_on_results_are_examples(shown, tiny_data):
    space = SearchSpace.load(SPACES / "quick.yaml").on(tiny_data)
    designs, out = shown(space, sampler="joint")
    assert len(designs) == dry_run.PRINTED_DESIGNS
    assert "joint chooses each design by what is known then; the space has such designs:" in out
    assert "from trial" not in out


def test_a_space_of_few_designs_is_shown_whole(shown, tmp_path, tiny_data):
    """The search, too, ends normally when it has tried them all."""
    path = tmp_path / "four.yaml"
    path.write_text(
        "name: four\nbaseline: retinaface_mobile025\nrungs: [1, 2]\neta: 2\n"
        "proxy: {size: 64, batch_size: 16}\ndimensions:\n"
        "  backbone.width: {choice: [0.125, 0.25]}\n  neck.width: {choice: [16, 32]}\n"
    )
    designs, out = shown(SearchSpace.load(path).on(tiny_data), sampler="random")
    assert len(designs) == 4
    assert "note: " in out and "the space is exhausted" in out
    assert "estimated time for 4 trials" in out


def test_results_change_nothing_of_what_was_shown(shown, tmp_path, tiny_data):
    """Trials that end as early as possible, so that the sampler knows as much as possible."""
    space = SearchSpace.load(SPACES / "quick.yaml").on(tiny_data)
    space = replace(space, rungs=space.rungs[-1:])
    designs, _ = shown(space, scheduler="none", sampler="frugal")
    assert len(designs) == SAMPLERS["frugal"].startup_trials
    driver = helpers.driver(tmp_path / "search", space, trials=len(designs))
    driver._proposer = Proposer(space, "frugal", seed=0)
    while True:
        try:
            driver.next_segment()
        except StopIteration:
            break
        record = driver.records[-1]
        result = helpers.trial_record(epochs=())  # completed
        driver.study.put(
            record.evolve(
                status=result.status,
                ended=1.0,
                epochs=(dry_epoch(space.rungs[-1], record.number),),
            )
        )
        driver._running.clear()
    assert [d["design"] for d in designs] == [
        r.design for r in driver.records if r.number and r.status is Status.COMPLETED
    ]


def dry_epoch(epoch: int, number: int):
    from trials.record import EpochResult

    return EpochResult(
        epoch=epoch,
        losses={"total": 1.0},
        lr=0.1,
        seconds=1.0,
        ap=helpers.equal_ap(0.5 + number / 100),
    )


def test_a_resumed_search_is_not_shown_as_a_new_one(shown):
    with pytest.raises(UserError, match="leave --resume out"):
        shown(SearchSpace.load(SPACES / "quick.yaml"), resume=True)
