"""MLflow's view of made-up records, in a sqlite store: logged in steps, at once, and again."""

import shutil
import sqlite3

import helpers
import pytest

from detector.base.errors import UserError
from trials.record import Cost, EpochResult, Status
from trials.tracking.mlflow_store import client, search_pages
from trials.tracking.saved_views import COLORS, RUN_COLOR
from trials.tracking.study_view import DataFacts, MlflowView, StudyFacts
from trials.tracking.tracker import ProgressPoint, TrialView

FACTS = StudyFacts(
    name="one",
    space="tiny",
    created=1000.5,
    tags={"seed": 0, "version.torch": "2"},
    data=DataFacts(
        name="synthetic", fingerprint="0123456789ab", source="synthetic", images={"train": 10}
    ),
)
POINTS = [ProgressPoint(step=n, time=1000.0 + n, values={"best_score": n / 10}) for n in (1, 2, 2)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A fresh store's file, created once, as that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


def trial_view(
    number: int, status: Status, epochs: int, on_front: bool = False, **changes
) -> TrialView:
    record = helpers.trial_record(
        number,
        status=status,
        cost=Cost(params=1000, macs=2000),
        started=1000.0 + number,
        ended=1010.0 + number if status.ended else None,
        rung=epochs // 2 - 1,
        epochs=tuple(
            EpochResult(
                epoch=n,
                losses={"total": 9.0 / n},
                lr=0.1,
                seconds=1.0,
                ended=1000.0 + n,
                ap=None if n % 2 else helpers.equal_ap(n / 10),
            )
            for n in range(1, epochs + 1)
        ),
    ).evolve(**changes)
    return TrialView(
        record=record, title=f"r{number:03d} mnv1", params={"neck.width": 16}, on_front=on_front
    )


def content(uri: str) -> list:
    """All content of a store, without its generated ids."""
    store = client(uri)
    (experiment,) = [e for e in store.search_experiments() if e.name == "tiny"]
    runs = []
    for run in store.search_runs([experiment.experiment_id]):
        generated = ("mlflow.parentRunId", "front_of")
        tags = {k: v for k, v in run.data.tags.items() if k not in generated}
        history = {
            name: sorted(
                (m.step, m.timestamp, m.value)
                for m in store.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
            if not name.startswith("system/")
        }
        runs.append(
            (
                run.info.run_name,
                run.info.status,
                run.info.start_time,
                run.info.end_time,
                tags,
                run.data.params,
                history,
            )
        )
    return sorted(runs, key=lambda run: run[0])


def test_a_pruned_trial_ends_with_its_last_epoch(uri):
    """Not when the search decided, at its end."""
    view = MlflowView(uri, FACTS)
    view.log_trial(trial_view(0, Status.PRUNED, 2))
    view.log_trial(trial_view(1, Status.COMPLETED, 4))
    assert [run[3] for run in content(uri) if " " in run[0]] == [1_002_000, 1_011_000]


def test_logging_in_steps_or_at_once_gives_the_same(uri, empty_store, tmp_path):
    live = MlflowView(uri, FACTS)
    live.log_trial(trial_view(0, Status.COMPLETED, 4, on_front=True))
    live.log_trial(trial_view(1, Status.PAUSED, 2))
    live.log_progress(POINTS[:1])
    live = MlflowView(uri, FACTS)  # the search was stopped and resumed
    live.log_trial(trial_view(0, Status.COMPLETED, 4, on_front=True))
    live.log_trial(trial_view(1, Status.COMPLETED, 4, on_front=True))
    live.log_trial(trial_view(0, Status.COMPLETED, 4))  # dominated by then
    live.log_trial(trial_view(2, Status.INFEASIBLE, 0, reason="too many parameters"))
    live.log_trial(trial_view(3, Status.FAILED, 1, reason="loss is nan"))
    live.log_progress(POINTS)
    live.close(True)

    other = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'other.db')}"
    for _ in range(2):
        once = MlflowView(other, FACTS, live=False)
        for view in (
            trial_view(0, Status.COMPLETED, 4),
            trial_view(1, Status.COMPLETED, 4, on_front=True),
            trial_view(2, Status.INFEASIBLE, 0, reason="too many parameters"),
            trial_view(3, Status.FAILED, 1, reason="loss is nan"),
        ):
            once.log_trial(view)
        once.log_progress(POINTS)
        once.close(True)
    runs = content(uri)
    assert runs == content(other)

    names, states = [run[0] for run in runs], [run[1] for run in runs]
    assert names == ["one", "one front", "r000 mnv1", "r001 mnv1", "r002 mnv1", "r003 mnv1"]
    assert states == ["FINISHED"] * 5 + ["FAILED"]
    parent, front, _, winner, infeasible, failed = runs
    assert front[6]["pareto_accuracy"] == [(0, 1011_000, pytest.approx(0.4))]
    assert front[6]["pareto_gmacs"] == [(0, 1011_000, 2e-6)]
    assert len({run[4][RUN_COLOR] for run in runs}) == 1
    assert parent[2:4] == (1_000_500, 1_013_000) and parent[4]["version.torch"] == "2"
    assert parent[6]["best_score"] == [(1, 1001_000, 0.1), (2, 1002_000, 0.2)]
    assert winner[4]["on_front"] == "True" and winner[5] == {"neck.width": "16"}
    assert winner[6]["loss_total"] == [(n, 1000_000 + 1000 * n, 9.0 / n) for n in (1, 2, 3, 4)]
    assert [m[2] for m in winner[6]["score"]] == pytest.approx([0.5 + 0.4, 0.5 + 0.8])
    assert (infeasible[4]["reason"], failed[4]["status"]) == ("too many parameters", "failed")


def test_data_and_duplicate_runs(uri):
    view = MlflowView(uri, FACTS)
    view.log_trial(trial_view(0, Status.PAUSED, 2))
    store = client(uri)
    experiment = store.get_experiment_by_name("tiny").experiment_id
    (parent,) = store.search_runs([experiment], "tags.role = 'study'")
    (data,) = parent.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("synthetic", "0123456789ab")
    # the request that created the trial's run was carried out late, after its repetition
    store.create_run(
        experiment, tags={"mlflow.parentRunId": parent.info.run_id, "role": "trial", "trial": "0"}
    )
    MlflowView(uri, FACTS).log_trial(trial_view(0, Status.COMPLETED, 4))
    (trial,) = store.search_runs([experiment], "tags.role = 'trial'")
    assert trial.data.tags["status"] == "completed" and trial.data.tags["epochs_logged"] == "4"
    # a new study under an old name is another run
    MlflowView(uri, StudyFacts(name="one", space="tiny", created=2000.0, tags={}))
    assert len(store.search_runs([experiment], "tags.role = 'study'")) == 2


def other_version(path):
    with sqlite3.connect(path) as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
    database.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_version, "is a store of another version of MLflow (schema ffffffffffff, here"),
        (lambda path: path.write_bytes(b"no database" * 500), "is not a readable database"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "is not a readable database"),
    ],
    ids=["version", "no database", "cut"],
)
def test_a_store_that_cannot_be_used_is_one_line(empty_store, tmp_path, damage, message):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    damage(path)
    with pytest.raises(UserError) as error:
        client(f"sqlite:///{path}")
    assert f"--tracking-uri sqlite:///{path}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///somewhere/mlruns", "MLflow keeps no runs in folders any more"),
        ("127.0.0.1:5000", "a server by http://HOST:PORT"),
        ("http://127.0.0.1:9", "no MLflow server answers there"),
    ],
)
def test_a_uri_that_is_no_store_is_one_line(uri, message):
    with pytest.raises(UserError, match=f"--tracking-uri {uri}.*{message}"):
        client(uri)


def fronts(uri: str) -> dict[str, tuple[str, list[float], str]]:
    """Name of each front's run → its id, the accuracies of its designs, its colour."""
    store = client(uri)
    experiment = store.get_experiment_by_name("tiny").experiment_id
    return {
        run.info.run_name: (
            run.info.run_id,
            [
                value
                for _, value in sorted(
                    (m.step, m.value)
                    for m in store.get_metric_history(run.info.run_id, "pareto_accuracy")
                )
            ],
            run.data.tags[RUN_COLOR],
        )
        for run in store.search_runs([experiment], "tags.role = 'study front'")
    }


def test_the_front_is_a_run_by_increasing_macs_that_is_replaced_when_it_changes(uri):
    large = trial_view(1, Status.COMPLETED, 4, on_front=True, cost=Cost(params=1, macs=9000))
    small = trial_view(2, Status.COMPLETED, 2, on_front=True)
    view = MlflowView(uri, FACTS)
    for trial in (large, small):
        view.log_trial(trial)
    view.close(True)
    (first, accuracies, _) = fronts(uri)["one front"]
    assert accuracies == pytest.approx([0.2, 0.4])

    view = MlflowView(uri, FACTS)  # resumed, with nothing new
    for trial in (large, small):
        view.log_trial(trial)
    view.close(True)
    assert fronts(uri)["one front"][0] == first

    view = MlflowView(uri, FACTS)  # extended: one is dominated now
    for trial in (large, small, trial_view(2, Status.COMPLETED, 2)):
        view.log_trial(trial)
    view.close(True)
    (second, accuracies, _) = fronts(uri)["one front"]
    assert second != first and accuracies == pytest.approx([0.4])


def test_studies_of_an_experiment_have_different_colours(uri):
    for number in range(3):
        facts = StudyFacts(name=f"s{number}", space="tiny", created=1000.0 + number, tags={})
        for _ in range(2):  # made, and resumed
            view = MlflowView(uri, facts)
            view.log_trial(trial_view(0, Status.COMPLETED, 4, on_front=True))
            view.close(True)
    colors = [fronts(uri)[f"s{number} front"][2] for number in range(3)]
    assert colors == list(COLORS[:3])


def test_the_pages_of_searches_are_those_of_experiments_with_one(uri):
    store = client(uri)
    store.create_experiment("something else")
    MlflowView(uri, FACTS).close(True)
    experiment = store.get_experiment_by_name("tiny")
    for key in experiment.tags:  # as of an older version
        if key.startswith("mlflow.sharedViewState."):
            store.delete_experiment_tag(experiment.experiment_id, key)
    (name,) = pages = search_pages(store, "http://127.0.0.1:5000/")
    assert name == "tiny"
    for page in pages[name].values():
        assert page.startswith("http://127.0.0.1:5000/#/experiments/")
        key = page.rsplit("=", 1)[1]
        assert f"mlflow.sharedViewState.{key}" in store.get_experiment_by_name("tiny").tags


@pytest.mark.parametrize("wanted", [None, "true"])
def test_system_metrics_are_logged_where_mlflow_is_told_so(uri, monkeypatch, wanted):
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
    if wanted:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", wanted)
    view = MlflowView(uri, FACTS)
    assert (view._monitor is not None) == bool(wanted)
    view.close(True)
