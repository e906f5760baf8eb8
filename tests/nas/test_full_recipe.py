"""A full training keeps what the search varied of how trials are trained."""

from dataclasses import replace

import pytest
import yaml

from detector.config.recipe import Augmentation
from nas.retraining.candidate import choose_candidate, full_recipe
from nas.retraining.options import RetrainOptions
from nas.search_space.dimensions import parse
from trials.folders import SPACE

DIMENSIONS = {
    "crops": {
        "choice": {
            "wide": {
                "recipe.augmentation.scales": [0.5, 2.0],
                "recipe.augmentation.crop": "face_centre",
            },
            "usual": {"recipe.augmentation.scales": [0.3, 1.0]},
        }
    },
    "recipe.augmentation.photometric": {"float": [0.0, 1.0]},
    "recipe.optimizer.schedule": {"choice": ["cosine", "step"]},
    "recipe.size": {"choice": [64, 96]},
    "neck.width": {"choice": [8, 12]},
}
DRAWN = {
    "crops": "wide",
    "recipe.augmentation.photometric": 0.25,
    "recipe.optimizer.schedule": "step",
    "recipe.size": 64,
    "neck.width": 8,
}


@pytest.fixture
def full(tiny_study):
    """The full recipe of a trial with these parameters, in a space with this `full`."""

    def recipe(params, changes=None):
        document = {"name": "quick", "dimensions": DIMENSIONS, "full": changes or {}}
        (tiny_study.folder / SPACE).write_text(yaml.safe_dump(document))
        number = len(tiny_study.records)
        drawn = {name: parse(name, DIMENSIONS[name]).distribution() for name in params}
        record = tiny_study.records[1].evolve(number=number, params=params)
        trained = replace(record.recipe.augmentation, scales=(0.5, 2.0), photometric=0.25)
        tiny_study.add(record.evolve(recipe=replace(record.recipe, augmentation=trained)), drawn)
        options = RetrainOptions(
            runs_dir=tiny_study.folder.parent, study="tiny", trial=number, epochs=40
        )
        return full_recipe(choose_candidate(options), options)

    return recipe


def test_crops_and_schedule_that_the_search_varied_are_kept(full):
    crops = Augmentation(scales=(0.5, 2.0), photometric=0.25, crop="face_centre")
    recipe = full(DRAWN)
    assert recipe.augmentation == crops
    assert recipe.optimizer.schedule == "step"
    assert recipe.size == 640  # that of the proxy is for its speed


def test_those_that_it_did_not_vary_are_the_usual_ones(full):
    recipe = full({"neck.width": 8})
    assert recipe.augmentation == Augmentation()
    assert (recipe.optimizer.schedule, recipe.optimizer.warmup_epochs) == ("cosine", 2)
    assert full({}).augmentation == Augmentation()  # of a baseline


def test_the_space_has_the_last_word(full):
    recipe = full(DRAWN, {"augmentation": {"photometric": 1.0}})
    assert recipe.augmentation.photometric == 1.0
    assert recipe.augmentation.scales == (0.5, 2.0)
