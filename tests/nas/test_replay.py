"""Searches replayed on a small table: the real decisions, nothing trained."""

import json

import helpers
import numpy as np
import pytest

from analysis.statistics.replays import best_of_draws, best_so_far, median, spent_until
from detector.base.errors import UserError
from nas import replay
from nas.engine.gate import evaluate_cost
from nas.samplers.proposer import DEFAULT, SAMPLERS
from nas.search_space.dimensions import enumerate_params
from nas.search_space.space import SPACES, SearchSpace
from nas.study.recorded_table import Row, Table
from nas.study.storage import Study
from nas.tabular.report import RANDOM_DRAWS, truth_of
from nas.tabular.simulator import CachedSpace, Schedule, play
from trials.names import describe
from trials.record import Cost, EpochResult, Status, TrialRecord

SPACE = """
name: mini
baseline: retinaface_mobile025
dimensions:
  backbone.kind: {choice: [mobilenet_v1, resnet]}
  v1.width: {sets: backbone.width, choice: [0.125, 0.25, 0.5], when: {backbone.kind: mobilenet_v1}}
  res.width: {sets: backbone.width, choice: [0.125, 0.1875], when: {backbone.kind: resnet}}
  neck.width: {choice: [16, 32, 48]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 16, evaluation: {every: 1}}
rungs: [1, 2, 4]
"""
EPOCHS = (1, 2, 3, 4)


def accuracy(params, epoch):
    width = params.get("v1.width", 0) + params.get("res.width", 0)
    return (
        (0.2 + width + params["neck.width"] / 400 + 0.1 * (params["context.kind"] == "ssh"))
        * (epoch / 4) ** 0.5
        / 2
    )


def row(space, params):
    detector, _ = space.resolve(params)
    ap = tuple((round(accuracy(params, epoch), 5),) * 3 for epoch in EPOCHS)
    return Row(
        params=params,
        describe=describe(detector),
        cost=Cost.of(detector),
        ap=ap,
        seconds=(1.0,) * 4,
    )


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text(SPACE)
    return SearchSpace.load(path)


@pytest.fixture
def table(space):
    rows = tuple(row(space, params) for params in enumerate_params(space.dimensions))
    baseline = Row(**{**vars(rows[0]), "params": {}})
    return Table(space="mini.yaml", made={}, evaluated=EPOCHS, baseline=baseline, rows=rows)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(rungs=(4,)),
        Schedule(rungs=(1, 2, 4), eta=2),
        Schedule(rungs=(1, 4), promote="front"),
    ],
    ids=lambda schedule: schedule.name,
)
def test_every_proposal_is_a_row_and_no_row_is_drawn_twice(table, space, sampler, schedule):
    if sampler == "gp":
        pytest.skip("is slow, and draws through the same gate")
    played = play(table, CachedSpace.of(space), sampler, schedule, seed=1)
    first = played.row[played.epoch == schedule.rungs[0]]
    assert sorted(first) == list(range(len(table.rows)))
    assert played.spent[-1] == sum(
        max(played.epoch[played.row == index]) for index in range(len(table.rows))
    )
    assert (np.diff(played.spent) > 0).all()
    if len(schedule.rungs) > 1:
        share = (played.epoch == 4).sum() / len(table.rows)
        assert 0 < share < 0.8
    again = play(table, CachedSpace.of(space), sampler, schedule, seed=1)
    assert (again.row == played.row).all() and (again.spent == played.spent).all()


def test_the_gaussian_process_is_replayed_too(table, space):
    played = play(table, CachedSpace.of(space), "gp", Schedule(rungs=(4,)), seed=1, budget=52)
    assert len(set(played.row)) == len(played.row) == 13


def test_a_budget_ends_a_search(table, space):
    complete, stopped = (
        play(table, CachedSpace.of(space), "random", Schedule(rungs=(4,)), seed=1, **limit)
        for limit in ({}, {"budget": 30})
    )
    assert stopped.spent[-1] == 32 and (stopped.row == complete.row[:8]).all()


def test_the_best_at_a_rung_are_promoted(table, space):
    """One worker: each promoted trial was among the best half by then."""
    played = play(
        table, CachedSpace.of(space), "random", Schedule(rungs=(2, 4), eta=2), seed=3, workers=1
    )
    scores = {
        index: space.objective.speed_score(r.cost) + 2 * accuracy(r.params, 2)
        for index, r in enumerate(table.rows)
    }
    seen = []
    for index, epoch in zip(played.row, played.epoch):
        if epoch == 2:
            seen.append(index)
        else:
            ranked = sorted(seen, key=lambda i: -scores[i])
            assert index in ranked[: len(seen) // 2]


def test_designs_that_the_table_lacks_are_never_drawn(table, space):
    few = Table(**{**vars(table), "rows": table.rows[::3]})
    for sampler in ("random", "tpe", "frugal"):
        played = play(few, CachedSpace.of(space), sampler, Schedule(rungs=(4,)), seed=0)
        assert sorted(played.row) == list(range(len(few.rows)))


def test_a_table_comes_back_equal(table, space, tmp_path):
    path = tmp_path / "mini.json"
    path.write_text(table.text())
    assert Table.load(path)[0] == table
    assert len(path.read_text().splitlines()) < len(table.rows) + 60


def test_a_table_is_recorded_from_a_study(table, space, tmp_path):
    manifest = helpers.manifest(space="mini", trials=30, scheduler="none", data_name="drawn")
    study = Study.create(tmp_path / "runs", "s", manifest)
    for number, one in enumerate([table.baseline, *table.rows]):
        proposal = evaluate_cost(space, one.params or table.rows[0].params)
        study.add(
            TrialRecord(
                number=number,
                status=Status.COMPLETED,
                design=proposal.design,
                params=one.params,
                detector=proposal.detector,
                recipe=proposal.recipe,
                cost=one.cost,
                speed_score=0.5,
                epochs=tuple(
                    EpochResult(
                        epoch=epoch,
                        losses={"total": 1.0},
                        lr=0.1,
                        seconds=1.0,
                        ap=dict(zip(("easy", "medium", "hard"), ap)),
                    )
                    for epoch, ap in zip(EPOCHS, one.ap)
                ),
            ),
            space.distributions(one.params),
        )
    assert (
        replay.cli.main(
            replay.make_parser(),
            replay.run,
            ["--record", str(study.folder), "--table", str(tmp_path / "mini.json")],
        )
        == 0
    )
    recorded, _ = Table.load(tmp_path / "mini.json")
    assert sorted(recorded.rows, key=str) == sorted(table.rows, key=str)
    assert recorded.made["data_fingerprint"] == manifest.data_fingerprint


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data["rows"].append(data["rows"][0]), "listed twice"),
        (lambda data: data["rows"][0]["params"].update({"neck.width": 17}), "neck.width"),
        (lambda data: data["rows"][0]["ap"].pop(), "unlike others"),
        (lambda data: data.update(evaluated=[1, 2, 3, 5]), "trained for 5 epochs"),
        (lambda data: data.pop("rows"), "rows: missing key"),
    ],
)
def test_a_damaged_table_is_refused_in_a_line(table, space, tmp_path, change, complaint):
    data = json.loads(table.text())
    change(data)
    (tmp_path / "mini.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=complaint):
        Table.load(tmp_path / "mini.json")


def test_the_command(table, space, tmp_path, capsys):
    path = tmp_path / "mini.json"
    path.write_text(table.text())
    flags = [
        "--table",
        str(path),
        "--seeds",
        "3",
        "--samplers",
        "random,nsga2",
        "--jobs",
        "1",
        "--schedules",
        "4",
        "1,2,4 eta 2 front",
        "--output",
        str(tmp_path),
        "--json",
        str(tmp_path / "result.json"),
    ]
    assert replay.cli.main(replay.make_parser(), replay.run, flags) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    kinds = [(one["sampler"], one["schedule"]) for one in result["outcomes"]]
    assert kinds[:4] == [
        ("random", "none"),
        ("nsga2", "none"),
        ("random", "1-2-4 η2 front"),
        ("nsga2", "1-2-4 η2 front"),
    ]
    assert ("fewest MACs first", "none") in kinds
    assert [rung["epoch"] for rung in result["rungs"]] == [1, 2, 3]
    assert (tmp_path / "replay.png").is_file()
    assert "Kendall" in capsys.readouterr().out
    lines = (tmp_path / "replay.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + 2 + len(kinds) + 3


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--schedules", "1,5"], "must be ascending, end at 4"),
        (["--schedules", "few"], "must be comma-separated epochs"),
        (["--schedules", ""], "must be comma-separated epochs"),
        (["--schedules", "1,4 eta nan"], "eta must be above 1"),
        (["--schedules", "1,4 fornt"], "must be comma-separated epochs"),
        (["--schedules", "1,4 eta 2 3"], "must be comma-separated epochs"),
        (["--samplers", "grid"], "not one of"),
        (["--table", "none.json"], "no such file"),
    ],
)
def test_mistakes_end_in_one_line(table, space, tmp_path, capsys, flags, complaint):
    path = tmp_path / "mini.json"
    path.write_text(table.text())
    shared = ["--table", str(path), "--jobs", "1", "--seeds", "1", "--schedules", "4"]
    assert replay.cli.main(replay.make_parser(), replay.run, shared + flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert complaint in error and error.startswith("error: ")


def test_processes_change_nothing(table, space):
    arguments = (["random", "nsga2"], [Schedule(rungs=(1, 4))], 2)
    one, two = (replay.replay(table, space, *arguments, jobs=jobs) for jobs in (1, 2))
    for key, played in one.items():
        for a, b in zip(played, two[key]):
            assert (a.spent == b.spent).all() and (a.row == b.row).all()


def test_the_space_of_the_shipped_table():
    space = SearchSpace.load(SPACES / "table.yaml")
    designs = enumerate_params(space.dimensions)
    assert 96 <= len(designs) == space.size() <= 128
    assert max(evaluate_cost(space, params).cost.macs for params in designs) <= 3e9


def test_the_recorded_table_has_every_design_of_its_space():
    path = SPACES / "table.json"
    table, space = Table.load(path)
    assert len(table.rows) == space.size() == 96
    assert (table.full, set(space.rungs) <= set(table.evaluated)) == (12, True)
    assert table.made["images"] == {"train": 693, "holdout": 176, "val": 488}
    assert path.stat().st_size <= 2e6
    for row in table.rows[::12]:
        cost = evaluate_cost(space, row.params).cost
        assert (row.cost.params, row.cost.macs) == (cost.params, cost.macs)


@pytest.mark.slow
def test_a_search_with_defaults_beats_random_search_on_the_recorded_table():
    table, space = Table.load(SPACES / "table.json")
    usual = Schedule(rungs=space.rungs, eta=space.eta)
    plays = replay.replay(table, space, [DEFAULT], [usual], 12, jobs=2)[DEFAULT, usual]
    truth = truth_of(table, space)
    goal = best_of_draws(truth.score, RANDOM_DRAWS)  # which half of all random searches reach
    spent = median([spent_until(one, best_so_far(one, truth), goal) for one in plays])
    assert spent.high < RANDOM_DRAWS * table.full
