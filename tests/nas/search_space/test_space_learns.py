"""Every head of the flagship learns under each of its losses, whatever a draw puts before it."""

from dataclasses import replace

import pytest

from detector.config.recipe import DataChoice
from detector.data.cache import cache_images
from detector.data.open import open_data
from detector.data.splits import Subset
from detector.training.fit import fit
from nas.engine.gate import weigh
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

PAIRS, EACH = 7, 4
LARGEST = 1_000_000_000  # MACs at 640×640: the rest differs by size alone
IMAGES = 240


@pytest.mark.slow
def test_random_designs_of_the_flagship_learn(tmp_path):
    """The loss of each falls within an epoch; all pairs of head and loss are among them."""
    data = open_data(DataChoice(path="synthetic"))
    space = SearchSpace.load(SPACES / "retina.yaml").on(data)
    images = cache_images(Subset(data.train, range(IMAGES), "some"), tmp_path, 160)
    pairs, learnt = set(), {}
    for number, found in enumerate(_small_draws(space)):
        recipe = replace(found.recipe, optimizer=replace(found.recipe.optimizer, warmup_epochs=0.1))
        totals = _totals(found.detector, recipe, images, tmp_path / str(number))
        quarter = len(totals) // 4
        ratio = sum(totals[-quarter:]) / sum(totals[:quarter])
        pairs.add(_head_and_loss(found.params))
        learnt[number] = ratio
        print(f"{number:2d} {_head_and_loss(found.params)}: loss × {ratio:.2f}")
    assert len(pairs) == PAIRS
    assert all(ratio < 1 for ratio in learnt.values()), learnt


def _totals(detector, recipe, images, workdir) -> list[float]:
    """The loss at each step of one epoch."""
    found = []
    for _ in fit(
        detector,
        recipe,
        images,
        None,
        workdir=workdir,
        device="cpu",
        until=1,
        progress=lambda epoch, step, steps, losses: found.append(losses["total"]),
    ):
        pass
    return found


def _small_draws(space):
    """Draws below LARGEST, EACH of each pair of head and loss."""
    trial, met = RandomTrial("learns"), {}
    while sum(met.values()) < PAIRS * EACH:
        found = weigh(space, space.suggest(trial))
        pair = _head_and_loss(found.params)
        if found.cost.macs < LARGEST and met.get(pair, 0) < EACH:
            met[pair] = met.get(pair, 0) + 1
            yield found


def _head_and_loss(params) -> tuple[str, str]:
    return params["head"], params[f"{params['head']}.loss"]
