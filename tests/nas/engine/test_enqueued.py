"""Designs to try first, and results reused from another study, with simulated training."""

import random
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import helpers
import pytest

from detector.base.errors import UserError
from detector.config.detector import arch_hash
from detector.config.presets import load_preset
from nas.engine.enqueued import Queue, check_same_queue, queue_text, read_queue
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import Status

DATA = SimpleNamespace(fingerprint="abc", select_on="holdout")


@pytest.fixture
def queue_of(tmp_path, mixed_space):
    """Function: content of the --enqueue file, --from-study → the queue."""

    def read(text=None, from_study=None, space=mixed_space, data=DATA):
        path = tmp_path / "first.yaml"
        if text is not None:
            path.write_text(text)
        options = Namespace(
            enqueue=path if text is not None else None,
            seed=0,
            from_study=from_study,
            runs_dir=tmp_path,
        )
        return read_queue(options, space, data)

    return read


@pytest.fixture
def old_search(start_search, simulate):
    """The driver of a completed search, study "old"."""
    driver = start_search("old", trials=6)
    simulate(driver)
    return driver


def completed(driver):
    """Its completed trials without the baseline, best first."""
    records = [r for r in driver.records if r.number and r.status is Status.COMPLETED]
    return sorted(records, key=lambda r: -r.score)


FIRST = """\
designs:
  - preset: yunet_n
  - params: {backbone.kind: mobilenet_v1, backbone.width: 0.25, neck.width: 16, context.kind: none}
  - params: {backbone.kind: resnet, backbone.width: 3.0, backbone.block: basic, neck.width: 64,
             context.kind: ssh}
  - params:
      neck.width: 32
  - preset: retinaface_mobile025
"""


def test_enqueued_designs_come_first_and_pass_the_same_gate(
    mixed_space, start_search, simulate, queue_of
):
    driver = start_search(queue=queue_of(FIRST), trials=5)
    simulate(driver)
    records = driver.records
    assert [r.source for r in records[:5]] == ["baseline", *["enqueued"] * 4]
    assert records[1].design == arch_hash(load_preset("yunet_n")[0]) and records[1].params == {}
    assert records[1].recipe == mixed_space.proxy
    assert records[2].params["neck.width"] == 16 and records[2].params["context.kind"] == "none"
    assert records[3].status is Status.INFEASIBLE and "max_params" in records[3].reason
    assert records[4].params["neck.width"] == 32 and set(records[4].params) >= {
        "backbone.kind",
        "backbone.width",
        "context.kind",
    }
    assert records[2].notes["origin"] == "first.yaml, design 2"
    # the last one is the baseline, which is trained already; two designs were sampled
    feasible = [r for r in records if r.number and r.status is not Status.INFEASIBLE]
    assert [r.source for r in feasible] == ["enqueued"] * 3 + ["sampled"] * 2


def test_a_killed_search_resumes_its_queue(
    tmp_path, start_search, simulate, queue_of, without_times
):
    queue = queue_of(FIRST)
    uninterrupted = start_search("uninterrupted", queue=queue, trials=5)
    simulate(uninterrupted)
    killed, rng = start_search("killed", queue=queue, trials=5), random.Random(0)
    queue.write(killed.study.folder)
    while not simulate(killed, kill_after=rng.randrange(1, 9)):
        study = Study.open(tmp_path, "killed")
        manifest = replace(study.manifest, enqueue="text")
        killed = start_search(study=study, trials=5, queue=Queue.read(study.folder, manifest))
    assert without_times(killed.records) == without_times(uninterrupted.records)


def test_duplicates_are_left_out(queue_of, capsys):
    preset = "  - preset: yunet_n\n"
    queue = queue_of("designs:\n" + 3 * preset + "  - preset: yunet_s\n")
    assert [entry.origin for entry in queue.entries] == [
        "first.yaml, design 1",
        "first.yaml, design 4",
    ]
    assert capsys.readouterr().out == "designs to try first: 2, duplicates left out: 2\n"


def test_results_of_the_same_training_are_reused(
    tmp_path, old_search, start_search, simulate, queue_of, capsys
):
    sources = [old_search.records[0], *completed(old_search)]
    num_sampled = len(sources) - 1
    queue = queue_of(from_study="old")
    assert capsys.readouterr().out == (
        f"designs to try first: {num_sampled}, results reused: {num_sampled}\n"
    )
    new = start_search("new", queue=queue, trials=num_sampled + 2)
    simulate(new)
    reused = [r for r in new.records if r.reused]
    assert [r.source for r in reused] == [f"study old trial {r.number}" for r in sources]
    for record, source in zip(reused, sources):
        assert (record.design, record.epochs, record.score) == (
            source.design,
            source.epochs,
            source.score,
        )
        assert record.epochs_spent == 0 and record.seconds == 0 and record.rung == 2
        assert not new.workdir(record).exists()
    assert [r.number for r in reused] == list(range(num_sampled + 1))
    assert sum(r.source == "sampled" for r in new.records if r.status is not Status.INFEASIBLE) == 2
    assert new.finished() and Study.open(tmp_path, "new").records == new.records
    stored = new.study._optuna.get_trials(deepcopy=False)[1]  # as Optuna's own tools show it
    assert stored.state.name == "COMPLETE" and stored.value == pytest.approx(reused[1].score)


def test_a_search_may_consist_of_reused_results_only(old_search, start_search, queue_of):
    new = start_search("new", queue=queue_of(from_study="old:2"), trials=2)
    with pytest.raises(StopIteration):
        new.next_segment()
    assert [r.reused for r in new.records] == [True] * 3 and new.finished()


@pytest.mark.parametrize("other", ["images", "recipe"])
def test_other_trainings_are_only_enqueued(
    tmp_path, mixed_space, old_search, start_search, simulate, queue_of, other
):
    data, space = DATA, mixed_space
    if other == "images":
        data = SimpleNamespace(fingerprint="other", select_on="holdout")
    else:
        text = mixed_space.path.read_text().replace("batch_size: 4", "batch_size: 8")
        (tmp_path / "tiny.yaml").write_text(text)
        space = SearchSpace.load(tmp_path / "tiny.yaml")
    queue = queue_of(from_study="old:1", space=space, data=data)
    new = start_search("new", space=space, queue=queue, trials=1)
    simulate(new)
    best = completed(old_search)[0]
    assert new.records[1].design == best.design and new.records[1].params == best.params
    assert (new.records[1].source, new.records[1].epochs_spent) == ("enqueued", 4)
    assert new.records[1].notes["origin"] == f"study old trial {best.number}"
    assert new.records[1].recipe == space.proxy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "designs:\n  - preset: retina\n",
            "first.yaml:2: designs → 0 → preset: preset 'retina' is ",
        ),
        (
            "designs:\n  - params: {neck.width: 16}\n  - params:\n      neck.width: 17\n",
            "first.yaml:4: designs → 1 → params → neck.width: cannot be 17 in this space, "
            "only one of 16",
        ),
        ("designs: [{params: {neck.width: [16]}}]", "neck.width: cannot be [16] in this space"),
        ("designs:\n  - params: {neck.wide: 16}", "neck.wide: the space has no such dimension"),
        (
            "designs:\n  - params: {backbone.kind: mobilenet_v1, backbone.block: basic}",
            "backbone.block: is active only with backbone.kind: resnet",
        ),
        (
            "designs:\n  - neck.width: 16",
            "first.yaml:2: designs → 0: design 1 must have one of params",
        ),
        ("designs: {}", "first.yaml:1: designs: must be a list"),
        ("trials: []", "first.yaml:1: trials: unknown key"),
        ('{"designs": [{"config": "none.yaml"}]}', "none.yaml: no such file"),
    ],
)
def test_an_invalid_design_is_reported_with_its_line(queue_of, text, message):
    with pytest.raises(UserError) as error:
        queue_of(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_values_off_the_steps_are_refused_and_rounding_errors_are_not(queue_of, tmp_path):
    path = tmp_path / "steps.yaml"
    path.write_text(
        "name: steps\nbaseline: retinaface_mobile025\nrungs: [1]\nproxy: {size: 64}\n"
        "dimensions:\n  backbone.depth3: {int: [1, 5], step: 2}\n"
        "  recipe.loss.match_iou: {float: [0.1, 0.5], step: 0.1}\n"
    )
    space = SearchSpace.load(path)
    with pytest.raises(UserError, match=r":1: .*depth3: cannot be 4 in .*, only one of 1, 3, 5"):
        queue_of("designs: [{params: {backbone.depth3: 4}}]", space=space)
    text = "designs: [{params: {backbone.depth3: 3.0, recipe.loss.match_iou: 0.3}}]"
    (entry,) = queue_of(text, space=space).entries
    assert entry.params == {"backbone.depth3": 3, "recipe.loss.match_iou": 0.1 + 2 * 0.1}
    for name, distribution in space.distributions(entry.params).items():
        assert distribution._contains(entry.params[name])


def test_an_invalid_study_is_reported_in_one_line(start_search, queue_of):
    start_search("empty")
    for spec, message in (
        ("none", "study none is not in"),
        ("empty", "has no completed trial"),
        ("empty:0", "0 must be a number of designs"),
    ):
        with pytest.raises(UserError, match=message):
            queue_of(from_study=spec)


def test_a_study_is_resumed_with_its_own_queue(tmp_path):
    path = tmp_path / "q.yaml"
    path.write_text("designs: [{preset: yunet_n}]")
    flags = Namespace(enqueue=path, from_study=None)
    manifest = helpers.manifest(enqueue=queue_text(flags))
    check_same_queue(flags, manifest)
    check_same_queue(Namespace(enqueue=None, from_study=None), manifest)
    with pytest.raises(UserError, match="started with no --from-study"):
        check_same_queue(Namespace(enqueue=None, from_study="a"), manifest)
    path.write_text("designs: [{preset: yunet_s}]")
    with pytest.raises(UserError, match="started with another --enqueue"):
        check_same_queue(flags, manifest)
    with pytest.raises(UserError, match=r"queue\.json: cannot be read"):
        Queue.read(tmp_path, manifest)
