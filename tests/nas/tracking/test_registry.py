"""Which aliases a registered model gets."""

import os
from types import SimpleNamespace

import pytest

from nas.tracking.registry import _best_on, aliases_of, data_alias, fluent_store

SCENES = {
    "score": "2.0",
    "data_name": "builtin",
    "data_fingerprint": "0123456789ab",
    "objective": "{}",
    "with_holdout": "False",
}
PHOTOS = SCENES | {"data_name": "WIDER FACE", "data_fingerprint": "fedcba987654"}
OTHERS = PHOTOS | {"data_name": "Crowds", "data_fingerprint": "aaaaaaaaaaaa"}
OF_SCENES, OF_PHOTOS = "champion-builtin-012345", "champion-wider-face-fedcba"


@pytest.mark.parametrize("before", [None, "sqlite:///mine.db"])
def test_the_store_that_a_program_uses_itself_comes_back(monkeypatch, before):
    import mlflow

    key = "MLFLOW_TRACKING_URI"
    monkeypatch.delenv(key, raising=False)
    mlflow.set_tracking_uri(before)
    with pytest.raises(KeyError), fluent_store("sqlite:///other.db"):
        assert mlflow.get_tracking_uri() == os.environ[key] == "sqlite:///other.db"
        raise KeyError
    assert os.environ.get(key) == before
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("name", ["", "???", "latest", "v1", "Ünïcode", "a" * 300])
def test_aliases_are_names_that_mlflow_accepts(name):
    from mlflow.utils.validation import _validate_model_alias_name

    alias = data_alias(PHOTOS | {"data_name": name})
    _validate_model_alias_name(alias)
    assert alias.startswith("champion-") and alias.endswith("-fedcba")


def test_the_first_model_is_champion():
    aliases, reason = aliases_of(SCENES, best=None, champion=None, requested=False)
    assert aliases == [OF_SCENES, "champion"]
    assert reason == "champion, the first one"


@pytest.mark.parametrize(
    ("changes", "requested", "promoted", "reason"),
    [
        ({"score": "2.1"}, False, True, "champion: score 2.1000, version 3 had 2.0000"),
        ({"score": "2.0"}, False, False, "version 3 remains the best on these images: score 2.0"),
        ({"score": "1.0"}, True, True, "champion as requested"),
        ({"score": "None"}, False, False, "one of the two has no score; --champion overrides"),
        ({"score": "2.5", "machine": "x"}, False, False, "in another way; --champion overrides"),
        ({"score": "2.5", "with_holdout": "True"}, False, False, "in another way"),
    ],
)
def test_models_of_the_same_images_are_compared(changes, requested, promoted, reason):
    aliases, told = aliases_of(
        PHOTOS | changes, best=("3", PHOTOS), champion=("3", PHOTOS), requested=requested
    )
    assert aliases == ([OF_PHOTOS, "champion"] if promoted else [])
    assert reason in told


def test_a_model_of_photographs_replaces_one_of_the_built_in_scenes_whatever_its_score():
    worse = PHOTOS | {"score": "0.5"}
    aliases, reason = aliases_of(worse, best=None, champion=("1", SCENES), requested=False)
    assert aliases == [OF_PHOTOS, "champion"]
    assert "version 1, champion until now, was scored on other images and keeps its alias " in (
        reason
    )
    assert reason.endswith(OF_SCENES)


def test_a_model_of_the_built_in_scenes_never_replaces_one_of_photographs():
    better = SCENES | {"score": "9.0"}
    aliases, reason = aliases_of(
        better, best=("1", SCENES), champion=("2", PHOTOS), requested=False
    )
    assert aliases == [OF_SCENES]
    assert "version 2 remains champion" in reason


class Store:
    """What MLflow's client says of the registered model."""

    def __init__(self, versions: dict[str, dict[str, str]]):
        self._versions = versions
        self.aliases = {data_alias(tags): number for number, tags in versions.items()}

    def get_registered_model(self, name):
        return self

    def get_model_version(self, name, number):
        return SimpleNamespace(version=number, tags=self._versions[number])


def test_images_that_had_another_name_are_the_same():
    """As the folder may have been renamed, or an older version called it WIDER FACE."""
    store = Store({"3": PHOTOS, "4": OTHERS})
    assert _best_on(store, PHOTOS)[0] == _best_on(store, PHOTOS | {"data_name": "x"})[0] == "3"
    assert _best_on(store, OTHERS | {"data_name": "y"})[0] == "4"
    assert _best_on(store, SCENES) is None


def test_champion_follows_the_photographs_that_were_trained_on_last():
    aliases, reason = aliases_of(OTHERS, best=None, champion=("2", PHOTOS), requested=False)
    assert aliases == [data_alias(OTHERS), "champion"]
    assert OF_PHOTOS in reason
    aliases, _ = aliases_of(
        PHOTOS | {"score": "1.9"}, best=("2", PHOTOS), champion=("4", OTHERS), requested=False
    )
    assert aliases == []
