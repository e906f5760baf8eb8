"""A study on disk is read back equal and has one writer; damaged ones are reported."""

import os
from dataclasses import replace

import helpers
import optuna
import pytest

from analysis.records.load import load_records
from detector.base.errors import UserError
from detector.config.presets import load_preset
from nas.study.storage import Study, _frozen
from trials.folders import new_study_name, newest_study, read_manifest
from trials.record import Cost, EpochResult, Status, TrialRecord, records_to_json

DESIGN, RECIPE = load_preset("retinaface_mobile025")

MANIFEST = helpers.manifest()
DISTRIBUTIONS = {"width": optuna.distributions.IntDistribution(1, 8)}


def make(number, status=Status.RUNNING, **changes):
    record = TrialRecord(
        number=number,
        status=status,
        design=f"d{number}",
        detector=DESIGN,
        recipe=RECIPE,
        params={"width": 3},
        cost=Cost(params=10, macs=20),
        speed_score=0.25,
        started=5.0,
    )
    return record.evolve(**changes)


def epoch(number, ap):
    return EpochResult(
        epoch=number,
        losses={"total": 1.5},
        lr=0.1,
        seconds=2.0,
        ap={"easy": ap, "medium": ap, "hard": ap},
    )


def optuna_trials(tmp_path):
    return optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/study.db").trials


def test_records_are_read_back_equal(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    study.add(make(1, Status.INFEASIBLE, reason="too large"), DISTRIBUTIONS)
    study.add(make(2), DISTRIBUTIONS)
    study.put(make(0, epochs=(epoch(1, 0.5),), rung=0))
    study.put(make(0, Status.COMPLETED, epochs=(epoch(1, 0.5), epoch(2, 0.75)), rung=1, ended=9.0))
    reopened = Study.open(tmp_path, "s")
    assert reopened.records == study.records
    assert [r.status for r in reopened.records] == ["completed", "infeasible", "running"]
    assert reopened.records[0].score == 0.25 + 2 * 0.75
    assert reopened.manifest == MANIFEST


def test_optuna_shows_the_same_results(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    study.put(make(0, Status.COMPLETED, epochs=(epoch(1, 0.5),), rung=0))
    study.add(make(1), DISTRIBUTIONS)
    study.put(make(1, Status.PRUNED, epochs=(epoch(1, 0.1),), rung=0))
    optuna_study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/study.db")
    first, second = optuna_study.trials
    assert optuna_study.best_value == first.value == 1.25
    assert first.params == {"width": 3}
    assert first.user_attrs["accuracy_score"] == 0.5
    assert first.user_attrs["macs"] == 20
    assert first.user_attrs["design"].startswith("mnv1 ")
    assert max(len(str(value)) for value in first.user_attrs.values()) < 100  # no JSON of a record
    assert optuna_study.metric_names == ["score"]
    assert optuna_study.user_attrs["space"] == MANIFEST.space
    assert second.state == optuna.trial.TrialState.PRUNED
    assert second.intermediate_values == {1: pytest.approx(0.25 + 0.2)}


def infeasible(*numbers):
    return [make(n, Status.INFEASIBLE, params={"width": n}, reason=f"{n} many") for n in numbers]


def test_infeasible_records_are_stored_together_each_with_its_parameters(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    study.add_infeasible(infeasible(1, 2, 3), [DISTRIBUTIONS] * 3)
    study.add(make(4), DISTRIBUTIONS)
    study.put(make(4, Status.COMPLETED, epochs=(epoch(1, 0.5),), rung=0))
    study.add_infeasible(infeasible(5), [DISTRIBUTIONS])
    reopened = Study.open(tmp_path, "s")
    assert reopened.records == study.records == load_records(tmp_path / "s")
    assert [r.number for r in reopened.records] == list(range(6))
    trials = optuna_trials(tmp_path)
    assert [trial.number for trial in trials] == list(range(6))
    for number in (1, 2, 3, 5):
        assert trials[number].params == {"width": number}
        assert trials[number].user_attrs["reason"] == f"{number} many"
        assert trials[number].user_attrs["status"] == "infeasible"
    reopened.add(make(6), DISTRIBUTIONS)
    with pytest.raises(AssertionError):
        reopened.add_infeasible(infeasible(6), [DISTRIBUTIONS])


def test_of_infeasible_records_all_are_stored_or_none(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    second, wrong = infeasible(1, 2)
    trials = [_frozen(record, DISTRIBUTIONS) for record in (second, wrong)]
    trials[1].user_attrs["reason"] = object()  # no JSON
    with pytest.raises(TypeError):
        study._storage.create_failed_trials(trials)
    assert Study.open(tmp_path, "s").records == [make(0)]
    study.add_infeasible([second], [DISTRIBUTIONS])
    assert Study.open(tmp_path, "s").records == [make(0), second]


def test_a_batch_of_infeasible_records_in_one_trial_is_read_as_older_versions_stored_it(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    batch = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL,
        system_attrs={"record": records_to_json(infeasible(1, 2, 3))},
    )
    study._optuna.add_trial(batch)
    resumed = Study.open(tmp_path, "s")
    assert resumed.records == [make(0), *infeasible(1, 2, 3)]
    resumed.add_infeasible(infeasible(4, 5), [DISTRIBUTIONS] * 2)
    assert Study.open(tmp_path, "s").records == load_records(tmp_path / "s") == resumed.records
    assert [trial.number for trial in optuna_trials(tmp_path)] == [0, 1, 2, 3]


def test_optuna_shows_when_a_pruned_trial_was_trained(tmp_path):
    """Not that it waited for the end of the search."""
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0, started=1e9), DISTRIBUTIONS)
    study.add(make(1, started=1e9 + 50), DISTRIBUTIONS)
    trained = tuple(replace(epoch(n, 0.5), ended=1e9 + 100 * n) for n in (1, 2))
    study.put(make(0, Status.PAUSED, epochs=trained, started=1e9))
    study.put(make(0, Status.PRUNED, epochs=trained, started=1e9, ended=1e9 + 5000))
    study.put(make(1, Status.FAILED, epochs=trained, started=1e9 + 50, ended=1e9 + 700))
    study.add(make(2, Status.PRUNED, source="study t trial 1", epochs=trained, ended=5.0), {})
    times = [
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in optuna_trials(tmp_path)
    ]
    assert times == [(1e9, 1e9 + 200), (1e9 + 50, 1e9 + 700), (5.0, 5.0)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("step", "lost"),
    [
        ("set_trial_system_attr", "state and record"),
        ("set_trial_user_attr", "state"),
        ("set_trial_intermediate_value", "state"),
        ("set_trial_state_values", "state"),
    ],
)
def test_the_next_writer_completes_what_a_killed_one_did_not_pass_on_to_optuna(
    tmp_path, monkeypatch, step, lost
):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)

    def killed(*args):
        raise Killed

    ended = make(0, Status.COMPLETED, epochs=(epoch(1, 0.5), epoch(2, 0.75)), rung=1, ended=9.0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(study._storage, step, killed)
        study.put(ended)
    reopened = Study.open(tmp_path, "s")
    assert optuna_trials(tmp_path)[0].state.name == "RUNNING"  # a reader does not write
    with reopened.writing():
        if "record" in lost:
            assert reopened.records == [make(0)]
            reopened.put(ended)
    assert Study.open(tmp_path, "s").records[-1] == ended
    trial = optuna_trials(tmp_path)[-1]
    assert trial.state.name == "COMPLETE"
    assert trial.value == ended.score
    assert trial.intermediate_values == {1: 1.25, 2: 1.75}
    assert trial.user_attrs["accuracy_score"] == 0.75


def test_a_writer_reads_what_another_one_has_stored_since_it_opened_the_study(tmp_path):
    first = Study.create(tmp_path, "s", MANIFEST)
    second = Study.open(tmp_path, "s")
    with first.writing():
        first.add(make(0), DISTRIBUTIONS)
    with second.writing():
        second.add(make(1), DISTRIBUTIONS)
    assert [r.number for r in Study.open(tmp_path, "s").records] == [0, 1]


def test_a_pruned_trial_can_be_promoted_again(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    study.add(make(0), DISTRIBUTIONS)
    study.put(make(0, Status.PRUNED, epochs=(epoch(1, 0.5),), rung=0))
    study.put(make(0, Status.PAUSED, epochs=(epoch(1, 0.5),), rung=0))
    study.put(make(0, Status.COMPLETED, epochs=(epoch(1, 0.5), epoch(2, 0.6)), rung=1))
    assert Study.open(tmp_path, "s").records == study.records
    assert len(study.records) == 1


def test_create_refuses_an_existing_study(tmp_path):
    Study.create(tmp_path, "s", MANIFEST)
    with pytest.raises(UserError, match="--resume"):
        Study.create(tmp_path, "s", MANIFEST)


def test_the_error_for_an_unknown_study_lists_the_existing_ones(tmp_path):
    Study.create(tmp_path, "mine", MANIFEST)
    with pytest.raises(UserError, match="known: mine"):
        Study.open(tmp_path, "yours")


@pytest.mark.parametrize("name", ["../up", "", "a b", "-x", "a/b"])
def test_invalid_names(tmp_path, name):
    with pytest.raises(UserError, match="--study"):
        Study.create(tmp_path, name, MANIFEST)


def test_a_damaged_database_is_reported(tmp_path):
    Study.create(tmp_path, "s", MANIFEST)
    (tmp_path / "s" / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"study\.db: this is not a readable study"):
        Study.open(tmp_path, "s")


def test_a_damaged_manifest_is_reported(tmp_path):
    Study.create(tmp_path, "s", MANIFEST)
    (tmp_path / "s" / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json: cannot be read"):
        Study.open(tmp_path, "s")


def test_one_writer(tmp_path):
    study = Study.create(tmp_path, "s", MANIFEST)
    with (
        study.writing(),
        pytest.raises(UserError, match="in use"),
        Study.open(tmp_path, "s").writing(),
    ):
        pass
    with study.writing():  # unlocked
        pass


def test_new_studies_are_numbered_and_the_newest_is_found(tmp_path):
    assert newest_study(tmp_path) is None
    assert new_study_name(tmp_path, "tiny") == "tiny-001"
    for created, name, space in (
        (1, "tiny-001", "tiny"),
        (3, "tiny-007", "tiny"),
        (5, "x", "other"),
    ):
        Study.create(
            tmp_path, name, replace(MANIFEST, name=name, space=space, created=float(created))
        )
    assert new_study_name(tmp_path, "tiny") == "tiny-008"
    assert newest_study(tmp_path) == "x"
    assert newest_study(tmp_path, "tiny") == "tiny-007"


def test_a_study_without_a_manifest_does_not_exist(tmp_path):
    """Its creation was killed before the manifest was written, so it can be created again."""
    Study.create(tmp_path, "s", MANIFEST)
    (tmp_path / "s" / "study.json").unlink()
    assert newest_study(tmp_path) is None
    Study.create(tmp_path, "s", MANIFEST)
    assert read_manifest(tmp_path / "s") == MANIFEST


@pytest.mark.parametrize("name", ["q?x", "a#b", "100%", "a%41 b", "é ü", "{x}", "a&b=c;d@e:f"])
def test_folders_may_have_any_name(tmp_path, name):
    from analysis.records.load import load_records

    Study.create(tmp_path / name, "s", MANIFEST).add(make(0), DISTRIBUTIONS)
    assert [record.number for record in Study.open(tmp_path / name, "s").records] == [0]
    assert len(load_records(tmp_path / name / "s")) == 1
    assert (tmp_path / name / "s" / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_database_that_is_missing_is_not_created_anew(tmp_path):
    Study.create(tmp_path, "s", MANIFEST)
    (tmp_path / "s" / "study.db").unlink()
    with pytest.raises(UserError, match=r"study\.db: does not exist; restore it"):
        Study.open(tmp_path, "s")
    assert not (tmp_path / "s" / "study.db").exists()


def test_another_users_study_can_be_read_but_not_written(tmp_path, monkeypatch):
    Study.create(tmp_path, "s", MANIFEST).add(make(0), DISTRIBUTIONS)
    monkeypatch.setattr("nas.study.storage.os.access", lambda path, mode: mode != os.W_OK)
    study = Study.open(tmp_path, "s")
    assert len(study.records) == 1
    copy = f"read-only for this user.* cp -r {tmp_path}/s copies/"
    with pytest.raises(UserError, match=copy), study.writing():
        pass


def test_of_two_searches_that_create_one_study_one_is_refused(tmp_path):
    """In one line, whichever step the other one has reached."""
    refusals = []

    def meanwhile(folder):
        with pytest.raises(UserError) as error:
            Study.create(tmp_path, "s", MANIFEST)
        refusals.append(str(error.value))

    study = Study.create(tmp_path, "s", MANIFEST, prepare=meanwhile)
    with study.writing():
        study.add(make(0), DISTRIBUTIONS)
        meanwhile(study.folder)
    assert "in use by another process" in refusals[0]
    assert "study s exists" in refusals[1]
    assert len(Study.open(tmp_path, "s").records) == 1
