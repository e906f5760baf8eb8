"""Shipped spaces, presets and recipes are found by name, without their folder."""

import shutil

import pytest

from detector.base.errors import UserError
from detector.config.presets import load_preset
from detector.config.shipped import find_file
from nas.retraining.candidate import choose_candidate, full_recipe
from nas.retraining.options import RetrainOptions
from nas.search_space.named import load_space


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_space_by_name():
    for name in ("quick", "quick.yaml", "search_spaces/quick.yaml"):
        assert load_space(name).name == "quick"
    with pytest.raises(
        UserError, match=r"space 'quack' is unknown; did you mean quick\? There are "
    ):
        load_space("quack")


def test_a_preset_by_name_or_as_a_file(elsewhere):
    shutil.copy(find_file("yunet_n", "preset"), elsewhere / "mine.yaml")
    for given, name in (("yunet_n", "yunet_n"), ("mine.yaml", "mine")):
        candidate = choose_candidate(
            RetrainOptions(preset=given, data="synthetic", runs_dir=elsewhere)
        )
        assert (candidate.config, candidate.recipe) == load_preset("yunet_n")
        assert candidate.folder == elsewhere / name / "best"
        assert candidate.title == f"preset {name}"


def test_a_recipe_by_name(elsewhere):
    options = RetrainOptions(preset="yunet_n", data="synthetic", runs_dir=elsewhere, recipe="short")
    recipe = full_recipe(choose_candidate(options), options)
    assert recipe.optimizer.kind == "adamw" and recipe.batch_size == 12
