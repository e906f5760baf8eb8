"""Designs to try first, results taken over and inherited weights, with pretended training."""

import random
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import helpers
import pytest

from detector.base.errors import UserError
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from nas.engine.enqueued import Queue, check_same_queue, queue_text, read_queue
from nas.engine.warm_start import WarmStart
from nas.engine.weight_inheritance import INIT, parent_of
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult, Status
from trials.run import SegmentReport

SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.kind: {choice: [mobilenet_v1, resnet]}
  backbone.width: {choice: [0.125, 0.25, 0.5, 3.0]}
  backbone.block: {choice: [basic, bottleneck], when: {backbone.kind: resnet}}
  neck.width: {choice: [16, 32, 64]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 4}
rungs: [1, 2, 4]
eta: 2
constraints: {max_params: 20000000}
"""
DATA = SimpleNamespace(fingerprint="abc", select_on="holdout")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    return SearchSpace.load(path)


@pytest.fixture
def queued(tmp_path, space):
    """Function: text of --enqueue, --from-study → the queue."""

    def read(text=None, from_study=None, data=DATA):
        path = tmp_path / "first.yaml"
        if text is not None:
            path.write_text(text)
        return read_queue(
            Namespace(
                enqueue=path if text is not None else None,
                seed=0,
                from_study=from_study,
                runs_dir=tmp_path,
            ),
            space,
            data,
        )

    return read


def make(tmp_path, space, name="s", queue=None, inherits=False, trials=8, study=None):
    study = study or Study.create(tmp_path, name, helpers.manifest(name, data_fingerprint="abc"))
    warm = WarmStart(space, study.folder, queue, inherits)
    return helpers.driver(tmp_path, space, study=study, trials=trials, warm=warm)


def play(driver, stop_after=lambda: False):
    """The whole search; False: killed in the middle. A checkpoint tells trial and epoch."""
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            driver.close()
            return True
        folder = Path(segment.workdir)
        folder.mkdir(parents=True, exist_ok=True)
        for epoch in range(segment.told + 1, segment.until + 1):
            if segment.init and epoch == 1:
                assert Path(segment.init).read_text() == driver.parents[segment.number]
            if stop_after():
                return False
            aside = folder / "aside"
            aside.write_text(f"{segment.number}/{epoch}")
            aside.replace(folder / "last.pt")
            value = (
                0.5 * random.Random(f"{driver.records[segment.number].design}/{epoch}").random()
                + 0.05 * epoch
            )
            ap = dict.fromkeys(("easy", "medium", "hard"), value)
            driver.take(
                SegmentReport(
                    number=segment.number,
                    ended=epoch == segment.until,
                    epoch=EpochResult(
                        epoch=epoch,
                        losses={"total": 1.0},
                        lr=0.1,
                        seconds=1.0,
                        ap=ap if epoch in segment.evaluate_at else None,
                    ),
                )
            )


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


def test_the_queue_goes_first_through_the_same_gate(tmp_path, space, queued, preset):
    driver = make(tmp_path, space, queue=queued(FIRST), trials=5)
    play(driver)
    records = driver.records
    assert [r.source for r in records[:5]] == ["baseline", *["enqueued"] * 4]
    assert records[1].design == arch_hash(preset("yunet_n")) and records[1].params == {}
    assert records[1].recipe == space.proxy
    assert records[2].params["neck.width"] == 16 and records[2].params["context.kind"] == "none"
    assert records[3].status is Status.INFEASIBLE and "max_params" in records[3].reason
    assert records[4].params["neck.width"] == 32 and set(records[4].params) >= {
        "backbone.kind",
        "backbone.width",
        "context.kind",
    }
    assert records[2].notes["origin"] == "first.yaml, design 2"
    # the baseline is there already; two designs were drawn
    legal = [r for r in records if r.number and r.status is not Status.INFEASIBLE]
    assert [r.source for r in legal] == ["enqueued"] * 3 + ["sampled"] * 2


def test_the_queue_outlives_kills(tmp_path, space, queued, without_times):
    queue = queued(FIRST)
    whole = make(tmp_path, space, "whole", queue, trials=5)
    play(whole)
    killed, chance = make(tmp_path, space, "killed", queue, trials=5), random.Random(0)
    queue.write(killed.study.folder)
    while not play(killed, stopping(chance)):
        study = Study.open(tmp_path, "killed")
        killed = make(
            tmp_path,
            space,
            study=study,
            trials=5,
            queue=Queue.of(study.folder, replace(study.manifest, enqueue="text")),
        )
    assert without_times(killed.records) == without_times(whole.records)


def stopping(chance):
    """For `play`: the moment of a kill, after at most eight epochs."""
    left = iter(range(chance.randrange(1, 9)))
    return lambda: next(left, None) is None


def test_results_of_the_same_training_are_taken_over(tmp_path, space, queued):
    old = make(tmp_path, space, "old", trials=6)
    play(old)
    done = sorted(
        (r for r in old.records if r.number and r.status is Status.COMPLETED),
        key=lambda r: -r.score,
    )
    new = make(tmp_path, space, "new", queued(from_study="old"), trials=len(done) + 2)
    play(new)
    taken = [r for r in new.records if r.taken_over]
    assert [r.source for r in taken] == [
        f"study old trial {r.number}" for r in [old.records[0], *done]
    ]
    for record, known in zip(taken, [old.records[0], *done]):
        assert (record.design, record.epochs, record.score) == (
            known.design,
            known.epochs,
            known.score,
        )
        assert record.epochs_spent == 0 and record.seconds == 0 and record.rung == 2
        assert not new.workdir(record).exists()
    assert [r.number for r in taken] == list(range(len(done) + 1))
    assert sum(r.source == "sampled" for r in new.records if r.status is not Status.INFEASIBLE) == 2
    assert new.finished() and Study.open(tmp_path, "new").records == new.records
    stored = new.study._optuna.get_trials(deepcopy=False)[1]  # for who looks with Optuna
    assert stored.state.name == "COMPLETE" and stored.value == pytest.approx(taken[1].score)


def test_a_search_may_consist_of_known_results_alone(tmp_path, space, queued):
    old = make(tmp_path, space, "old", trials=6)
    play(old)
    new = make(tmp_path, space, "new", queued(from_study="old:2"), trials=2)
    with pytest.raises(StopIteration):
        new.next_segment()
    assert [r.taken_over for r in new.records] == [True] * 3 and new.finished()


@pytest.mark.parametrize("other", ["images", "recipe"])
def test_other_trainings_are_only_enqueued(tmp_path, space, queued, other):
    old = make(tmp_path, space, "old", trials=6)
    play(old)
    data = DATA
    if other == "images":
        data = SimpleNamespace(fingerprint="other", select_on="holdout")
    else:
        (tmp_path / "tiny.yaml").write_text(SPACE.replace("batch_size: 4", "batch_size: 8"))
        space = SearchSpace.load(tmp_path / "tiny.yaml")
    queue = read_queue(
        Namespace(enqueue=None, from_study="old:1", runs_dir=tmp_path, seed=0), space, data
    )
    new = make(tmp_path, space, "new", queue, trials=1)
    play(new)
    best = max(
        (r for r in old.records if r.number and r.score and r.status is Status.COMPLETED),
        key=lambda r: r.score,
    )
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
def test_a_bad_queue_names_its_line(queued, text, message):
    with pytest.raises(UserError) as error:
        queued(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_bad_study_is_one_line(tmp_path, space, queued):
    make(tmp_path, space, "empty")
    for spec, message in (
        ("none", "study none is not in"),
        ("empty", "has no completed trial"),
        ("empty:0", "0 must be a number of designs"),
    ):
        with pytest.raises(UserError, match=message):
            queued(from_study=spec)


def test_a_study_goes_on_with_its_own_queue(tmp_path):
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
        Queue.of(tmp_path, manifest)


def heirs(driver):
    """Notes what each parent's checkpoint was when it was chosen; `play` compares."""
    driver.parents = {
        r.number: (driver.workdir(r) / INIT).read_text()
        for r in driver.records
        if r.parent is not None and (driver.workdir(r) / INIT).exists()
    }
    begun = driver._warm.begun

    def note(record, records):
        record = begun(record, records)
        if record.parent is not None:
            driver.parents[record.number] = (driver.workdir(record) / INIT).read_text()
        return record

    driver._warm.begun = note
    return driver


def test_trials_inherit_from_the_nearest_trained_design(tmp_path, space):
    driver = heirs(make(tmp_path, space, inherits=True, trials=12))
    play(driver)
    records = driver.records
    assert records[0].parent is None
    inherited = [r for r in records if r.parent is not None]
    assert len(inherited) >= 8
    for record in inherited:
        parent = records[record.parent]
        assert parent.detector.backbone.kind == record.detector.backbone.kind
        assert not (driver.workdir(record) / INIT).exists()  # the trial has ended
    alone = [r for r in records if r.parent is None and r.status is not Status.INFEASIBLE]
    kinds = [r.detector.backbone.kind for r in alone]
    assert kinds.count("mobilenet_v1") == 1  # the baseline


def test_the_nearest_is_the_one_that_differs_least(tmp_path, space):
    driver = make(tmp_path, space, trials=12)
    play(driver)
    legal = [
        r
        for r in driver.records
        if r.status is not Status.INFEASIBLE and r.detector.backbone.kind == "mobilenet_v1"
    ]

    def everywhere(record):
        folder = tmp_path / "all"
        folder.mkdir(exist_ok=True)
        (folder / "last.pt").touch()
        return folder

    for record in legal:
        if not record.params:
            continue
        found = parent_of(record, legal, everywhere)
        changes = {
            r.number: sum(r.params.get(name) != value for name, value in record.params.items())
            for r in legal
            if r.params and r.number != record.number
        }
        assert found.number == 0 or changes[found.number] == min(changes.values())
    assert parent_of(legal[1], legal, lambda record: tmp_path / "none") is None
    twins = [legal[1].evolve(number=90), legal[1].evolve(number=80)]
    assert parent_of(legal[1], twins, everywhere).number == 90  # the first of equals


def test_an_heir_resumes_as_if_nothing_had_happened(tmp_path, space, without_times):
    whole = heirs(make(tmp_path, space, "whole", inherits=True, trials=6))
    play(whole)
    killed = heirs(make(tmp_path, space, "killed", inherits=True, trials=6))
    chance = random.Random(0)
    while not play(killed, stopping(chance)):
        killed = heirs(
            make(tmp_path, space, study=Study.open(tmp_path, "killed"), inherits=True, trials=6)
        )
    assert without_times(killed.records) == without_times(whole.records)
    assert sum(r.parent is not None for r in whole.records) >= 3


@pytest.fixture
def preset():
    from detector.config.presets import load_preset

    return lambda name: load_preset(name)[0]


def test_weights_are_inherited_and_a_stop_changes_nothing(tmp_path, tiny_data):
    """Real training of a wider heir: told what it took, equal after a stop, not from scratch."""
    import torch

    from detector.config.detector import Backbone, Head, Neck
    from detector.data.cache import cache_images
    from detector.weights import checkpoint
    from nas.engine.weight_inheritance import keep_parent
    from trials.run import Segment, run_segment

    train, holdout = (
        str(cache_images(images, tmp_path / "cache", None).folder)
        for images in (tiny_data.train, tiny_data.holdout)
    )
    recipe = Recipe(epochs=2, size=64, batch_size=10)

    def design(width):
        return Detector(
            backbone=Backbone(
                kind="mobilenet_v1", stem=4, widths=(4, 8, 8, width, width), depths=(1,) * 5
            ),
            neck=Neck(levels=(4, 5), width=width),
            head=Head(landmarks=False),
        )

    def trained(number, width, until, told=0, init=None, folder=None):
        segment = Segment(
            number=number,
            detector=design(width),
            recipe=recipe,
            until=until,
            evaluate_at=(2,),
            told=told,
            train=train,
            holdout=holdout,
            init=init,
            workdir=str(tmp_path / (folder or str(number))),
            device="cpu",
        )
        reports = list(run_segment(segment))
        assert all(report.failure is None for report in reports), reports
        return reports

    trained(1, 8, 2)
    for name in ("whole", "halves"):
        keep_parent(tmp_path / "1", tmp_path / name)
    init = str(tmp_path / "whole" / INIT)
    whole = trained(2, 16, 2, init=init, folder="whole")
    halves = [
        *trained(2, 16, 1, init=init, folder="halves"),
        *trained(2, 16, 2, told=1, init=init, folder="halves"),
    ]
    start = whole[-1].notes["start"]
    assert 0 < start["copied"]["all"] < 1 and start["from_here"] and start["before"] is None
    assert halves[-1].notes["start"] == start
    one, other = (
        checkpoint.load(tmp_path / name / "last.pt").model for name in ("whole", "halves")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    scratch = trained(3, 16, 1)
    assert scratch[0].epoch.losses != whole[0].epoch.losses and "start" not in scratch[0].notes
