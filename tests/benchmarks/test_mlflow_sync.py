"""Time per trial to sync a study with MLflow, relative to a plain run with the same content."""

import statistics
import time

import helpers
import pytest

from analysis.records.load import load_records
from nas.study.tracker_view import StudyView
from nas.tracking.runs import open_tracker
from trials.names import describe
from trials.tracking.mlflow_store import client, experiment_id, milliseconds

TRIALS, ROUNDS = 60, 5


class Records:
    """The part of a study that a view needs."""

    def __init__(self, records):
        self.records = records


def plain(store, experiment: str, record) -> None:
    """A run written by MLflow's own calls: created, one batch, ended."""
    from mlflow.entities import Metric, Param, RunTag

    run = store.create_run(
        experiment,
        run_name=describe(record.detector),
        tags={"trial": str(record.number), "design": record.design},
    ).info.run_id
    stamp, points = milliseconds(record.ended), []
    for epoch in record.epochs:
        values = {f"loss_{name}": value for name, value in epoch.losses.items()}
        if epoch.ap is not None:
            values |= {f"ap_{level}": value for level, value in epoch.ap.items()}
            values |= {"accuracy_score": epoch.accuracy_score, "score": record.score}
        points += [Metric(name, value, stamp, epoch.epoch) for name, value in values.items()]
    points += [
        Metric(name, value, stamp, 0)
        for name, value in (
            ("params", record.cost.params),
            ("macs", record.cost.macs),
            ("speed_score", record.speed_score),
        )
    ]
    tags = {
        "status": record.status.value,
        "rung": record.rung,
        "source": record.source,
        "on_front": False,
        "retries": 0,
        "epochs_logged": len(record.epochs),
    }
    store.log_batch(
        run,
        metrics=points,
        params=[Param(name, str(value)) for name, value in record.params.items()],
        tags=[RunTag(name, str(value)) for name, value in tags.items()],
    )
    store.set_terminated(run, "FINISHED", stamp)


@pytest.mark.benchmark
def test_sync_costs_at_most_1_3_plain_runs(generated_study, tmp_path):
    records = load_records(generated_study("one", TRIALS))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = client(uri)
    experiment = experiment_id(store, "plain")
    ratios = []
    for turn in range(ROUNDS):  # in turns, so that other load affects both
        started = time.perf_counter()
        for record in records:
            plain(store, experiment, record)
        middle = time.perf_counter()
        manifest = helpers.manifest("one", space="retina", created=float(turn))
        sync = open_tracker(uri, manifest, "", live=False)
        StudyView(Records(records), sync, "macs").update_all()
        assert sync.close(True)
        ended = time.perf_counter()
        ratios.append((ended - middle) / (middle - started))
        print(
            f"a trial: plain {1000 * (middle - started) / TRIALS:.0f} ms, sync "
            f"{1000 * (ended - middle) / TRIALS:.0f} ms"
        )
    ratio = statistics.median(ratios)
    print(f"sync / plain: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    assert ratio <= 1.3
