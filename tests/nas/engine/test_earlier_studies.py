"""Which earlier results a new search learns from, and that it resumes with the same ones."""

from dataclasses import replace

import helpers
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.open import open_data
from nas.engine.earlier_studies import MAX_STUDIES, PRIOR, learn_prior, stored_prior
from nas.engine.gate import evaluate_cost
from nas.engine.open_study import open_study
from nas.engine.options import SearchOptions
from nas.samplers.features import features
from nas.samplers.prior import Prior
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult, Status


@pytest.fixture(scope="module")
def space():
    return SearchSpace.load(SPACES / "quick.yaml")


@pytest.fixture
def earlier(tmp_path, space):
    """Function: name → a study whose accuracy rises with the width of the neck."""

    def make(
        name, count=30, data_name="synthetic", proxies="short", sampled_as=None, source="sampled"
    ):
        manifest = replace(helpers.manifest(), name=name, data_name=data_name, proxies=proxies)
        study = Study.create(tmp_path, name, manifest)
        for number in range(count):
            params = space.suggest(RandomTrial(f"{sampled_as or name} {number}"))
            record = evaluate_cost(space, params).record(number, space.objective)
            accuracy = 0.002 * record.detector.neck.width + 0.1
            result = EpochResult(
                epoch=4, losses={}, lr=0.1, seconds=1.0, ap=helpers.equal_ap(accuracy)
            )
            record = record.evolve(epochs=(result,), status=Status.COMPLETED, source=source)
            study.add(record, space.distributions(record.params))
        return study

    return make


def test_studies_of_the_same_kind_of_images_count(earlier, tmp_path, capsys):
    earlier("one")
    earlier("other", data_name="another set")
    earlier("few", count=8)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    prior = learn_prior(tmp_path, "synthetic", "short")
    assert prior.sources == ("one (29 designs)",)  # without the baseline
    out = capsys.readouterr().out
    assert "note: nothing is learnt from broken: " in out
    assert "earlier results: one (29 designs); the search starts from what they say" in out


def test_what_it_says_follows_the_results(earlier, tmp_path, space):
    earlier("one")
    prior = learn_prior(tmp_path, "synthetic", "short")
    proposals = [evaluate_cost(space, space.suggest(RandomTrial(f"new {i}"))) for i in range(30)]
    rows = [features(p.detector, p.recipe, p.cost) for p in proposals]
    widths = [p.detector.neck.width for p in proposals]
    assert np.corrcoef(prior.predict(rows), widths)[0, 1] > 0.9


def test_the_recorded_table_counts_for_photographs(tmp_path):
    prior = learn_prior(tmp_path, "WIDER FACE", "short")
    assert prior.sources == ("table.json (96 designs)",)
    assert prior.explained > 0.5


def test_short_proxies_and_long_ones_say_nothing_about_each_other(earlier, tmp_path):
    earlier("brief", data_name="WIDER FACE")
    assert learn_prior(tmp_path, "WIDER FACE", "long") is None
    earlier("lasting", data_name="WIDER FACE", proxies="long")
    assert learn_prior(tmp_path, "WIDER FACE", "long").sources == ("lasting (29 designs)",)
    short = learn_prior(tmp_path, "WIDER FACE", "short").sources
    assert short == ("brief (29 designs)", "table.json (96 designs)")


def test_a_result_counts_once(earlier, tmp_path):
    """However many studies have it; otherwise a model would predict copies of what it was fitted
    to, and noise would explain itself."""
    earlier("one")
    earlier("two", sampled_as="one")  # created at the same time: the later name counts as newer
    assert learn_prior(tmp_path, "synthetic", "short").sources == ("two (29 designs)",)
    assert learn_prior(tmp_path, "synthetic", "short", without="two").sources == (
        "one (29 designs)",
    )


def test_results_of_other_studies_are_not_a_studys_own(earlier, tmp_path):
    earlier("one")
    earlier("two", sampled_as="one", source="study one, trial 1")
    assert learn_prior(tmp_path, "synthetic", "short").sources == ("one (29 designs)",)


def test_small_studies_do_not_hide_a_large_one(earlier, tmp_path):
    earlier("large")
    for number in range(MAX_STUDIES):
        earlier(f"small-{number}", count=5)
    assert learn_prior(tmp_path, "synthetic", "short").sources == ("large (29 designs)",)


def test_nothing_to_learn_from(tmp_path, capsys):
    assert learn_prior(tmp_path / "none", "synthetic", "short") is None
    assert capsys.readouterr().out == ""


def test_a_study_keeps_what_it_learnt(earlier, tmp_path, space, tiny_data, monkeypatch):
    data_name = open_data(replace(SearchOptions(space="quick").data_choice, path="synthetic")).name
    earlier("one", data_name=data_name)

    def opened(name, sampler="joint", **options):
        options |= {"runs_dir": tmp_path, "data": "synthetic", "study": name, "sampler": sampler}
        return open_study(SearchOptions(space="quick", **options), space)[0]

    study = opened("new")
    assert study.manifest.learnt_from == ("one (29 designs)",)
    prior = stored_prior(study.folder, study.manifest)
    assert prior == Prior.load(study.folder / PRIOR)
    earlier("later", data_name=data_name)
    resumed = opened("new", resume=True)
    assert stored_prior(resumed.folder, resumed.manifest) == prior
    (study.folder / PRIOR).unlink()
    with pytest.raises(UserError, match=r"prior\.json: no such file; restore it from a copy"):
        stored_prior(study.folder, study.manifest)
    for name, options in (("without", {"prior": False}), ("frugal", {"sampler": "frugal"})):
        other = opened(name, **options)
        assert other.manifest.learnt_from == ()
        assert stored_prior(other.folder, other.manifest) is None
