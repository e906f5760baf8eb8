"""A real MLflow server, killed and restarted while trials are logged."""

import os
import signal
import time
from dataclasses import replace

import helpers
import pytest

from nas.study.tracker_view import StudyView
from nas.tracking.runs import open_tracker
from trials.record import Status
from trials.tracking import tracker as tracker_module
from trials.tracking.mlflow_store import client

MANIFEST = helpers.manifest("tiny")


@pytest.mark.slow
def test_server_is_killed_and_comes_back(serve, tiny_study, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracker_module, "FIRST_WAIT", 0.5)
    process, address = serve(tmp_path)
    tracker = open_tracker(address, MANIFEST, "python -m nas.sync")
    view = StudyView(tiny_study, tracker, "macs")
    view.update(tiny_study.records[0])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for record in tiny_study.records[1:]:
        started = time.perf_counter()
        view.update(record)
        assert time.perf_counter() - started < 8  # one request that fails
    process, _ = serve(tmp_path, int(address.rsplit(":", 1)[1]))
    time.sleep(1.5)
    view.update(tiny_study.records[1])
    assert tracker.close(True)
    lost, back = caplog.messages
    assert "does not answer" in lost and "is back" in back

    store = client(address)
    experiment = store.get_experiment_by_name("tiny").experiment_id
    trials = store.search_runs([experiment], "tags.role = 'trial'")
    assert sorted((run.data.tags["trial"], run.data.tags["status"]) for run in trials) == [
        (str(r.number), r.status.value) for r in tiny_study.records
    ]
    (parent,) = store.search_runs([experiment], "tags.role = 'study'")
    done = sum(r.status is Status.COMPLETED for r in tiny_study.records)
    assert len(store.get_metric_history(parent.info.run_id, "best_score")) == done
    assert parent.info.status == "FINISHED"

    # Unavailable for good: what is missing is named at the end.
    tracker = open_tracker(address, replace(MANIFEST, created=2.0), "python -m nas.sync")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    StudyView(tiny_study, tracker, "macs").update_all()
    assert not tracker.close(True)
    assert "MLflow lacks 3 of 3 trials" in caplog.text
