"""Which retrained model belongs to which trial."""

from dataclasses import replace

import helpers
import pytest

from analysis.records.studies import load_study
from detector.config.recipe import Recipe
from trials.stored import Origin, read_metrics


def save(folder, record, title, **changes):
    folder.mkdir(parents=True)
    metrics = helpers.metrics(record.detector, title, design=record.design, **changes)
    metrics.write(folder / "metrics.json")


@pytest.fixture
def study(generated_study):
    """Folder of a study whose trials 1, 2 and 3 are of one design."""
    first = []

    def change(record):
        if record.number in (1, 2, 3):
            first.append(record)
            record = record.evolve(detector=first[0].detector, design=first[0].design)
        return record

    return generated_study("s", 12, change=change)


def accuracies(folder):
    return load_study(folder.parent, folder.name).retrained_accuracy


def test_models_of_trials_that_share_a_design_are_told_apart(study):
    record = load_study(study.parent, "s").records[1]
    for number in (1, 2):
        title = f"trial {number} of study s"
        save(study / "retrained" / f"r00{number}", record, title, accuracy_score=0.1 * number)
    assert accuracies(study) == {1: 0.1, 2: 0.2}


def test_the_latest_model_of_a_trial_counts(study):
    record = load_study(study.parent, "s").records[2]
    for folder, finished in (("best", 5.0), ("retrained/r002", 4.0)):
        title = "trial 2 of study s"
        save(study / folder, record, title, finished=finished, accuracy_score=finished / 10)
    assert accuracies(study) == {2: 0.5}


def test_retrains_of_other_images_or_of_a_rare_budget_are_not_compared(study):
    records = load_study(study.parent, "s").records
    full, brief = Recipe(epochs=60), Recipe(epochs=2)
    for number in (4, 5, 6, 7):
        record, title = records[number], f"trial {number} of study s"
        recipe = brief if number == 6 else full
        folder = study / "retrained" / f"r00{number}"
        save(folder, record, title, recipe=recipe, accuracy_score=0.1 * number)
        if number == 7:
            metrics = read_metrics(folder)
            other = replace(metrics.origin, data_fingerprint="other")
            replace(metrics, origin=other).write(folder / "metrics.json")
    assert accuracies(study) == {4: 0.4, 5: 0.5}


def test_a_preset_is_the_first_trial_of_its_design(study):
    record = load_study(study.parent, "s").records[3]
    save(study / "retrained" / "x", record, "preset x, as study s", accuracy_score=0.3)
    assert accuracies(study) == {1: 0.3}


def test_the_number_of_a_trial_is_stored_and_read_from_older_titles():
    origin = helpers.metrics(helpers.study_detector(8), "trial 17 of study s").origin
    assert origin.trial == 17 and origin.to_dict()["trial"] == 17
    older = {key: value for key, value in origin.to_dict().items() if key != "trial"}
    assert Origin.from_dict(older) == origin
    assert "trial" not in origin.identity  # older versions must find the same
    assert helpers.metrics(helpers.study_detector(8), "preset yunet_n").origin.trial is None


def test_the_name_of_photographs_does_not_make_another_origin():
    """Older versions called all of them WIDER FACE; the fingerprint tells them apart."""
    origin = helpers.metrics(helpers.study_detector(8), "trial 17 of study s").origin
    assert origin.identity["data_name"] == "synthetic"
    photographs = replace(origin, data=replace(origin.data, path="data/x"), data_name="party")
    assert photographs.identity == replace(photographs, data_name="WIDER FACE").identity
    assert photographs.identity != replace(photographs, data_fingerprint="other").identity
