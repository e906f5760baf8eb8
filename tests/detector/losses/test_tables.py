"""The names that recipes allow are those of the tables."""

from detector.config import recipe
from detector.losses.tables import ASSIGNERS, BOX_LOSSES, CLASS_LOSSES


def test_names_of_recipes_are_those_of_the_tables():
    assert list(ASSIGNERS) == recipe.ASSIGNERS
    assert list(CLASS_LOSSES) == recipe.CLASS_LOSSES
    assert list(BOX_LOSSES) == recipe.BOX_LOSSES
