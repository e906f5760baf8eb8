"""Every head of the flagship learns under each of its losses, whatever precedes it."""

from dataclasses import replace

import pytest

from detector.config.recipe import DataChoice
from detector.data.cache import cache_images
from detector.data.open import open_data
from detector.data.splits import Subset
from detector.training.fit import fit
from nas.engine.gate import evaluate_cost
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

PAIRS, EACH = 7, 3
LARGEST = 1_000_000_000  # MACs at 640×640: the rest differs by size alone
RATE = 0.01  # the least of the space: at the largest, a warm-up of a tenth of an epoch is too short
IMAGES = 240


@pytest.mark.slow
def test_random_designs_of_the_flagship_learn(tmp_path):
    """The loss of each falls within an epoch; all pairs of head and loss are among them."""
    data = open_data(DataChoice(path="synthetic"))
    space = SearchSpace.load(SPACES / "retina.yaml").on(data)
    images = cache_images(Subset(data.train, range(IMAGES), "some"), tmp_path, 160)
    pairs, learnt = set(), {}
    for number, proposal in enumerate(_small_draws(space)):
        recipe = replace(
            proposal.recipe,
            optimizer=replace(proposal.recipe.optimizer, lr=RATE, warmup_epochs=0.1),
        )
        losses = _losses(proposal.detector, recipe, images, tmp_path / str(number))
        quarter = len(losses) // 4
        ratio = sum(losses[-quarter:]) / sum(losses[:quarter])
        pairs.add(_head_and_loss(proposal.params))
        learnt[number] = ratio
        print(f"{number:2d} {_head_and_loss(proposal.params)}: loss × {ratio:.2f}")
    assert len(pairs) == PAIRS
    assert all(ratio < 1 for ratio in learnt.values()), learnt


def _losses(detector, recipe, images, workdir) -> list[float]:
    """The loss at each step of one epoch; with quality focal loss, that of the boxes. Its targets
    are the IoUs of the predicted boxes, so it rises while those become better."""
    name = "box" if recipe.loss.class_loss == "quality_focal" else "total"
    losses_by_step = []
    for _ in fit(
        detector,
        recipe,
        images,
        None,
        workdir=workdir,
        device="cpu",
        until=1,
        progress=lambda epoch, step, steps, losses: losses_by_step.append(losses[name]),
    ):
        pass
    return losses_by_step


def _small_draws(space):
    """Draws below LARGEST, EACH of each pair of head and loss."""
    trial, counts = RandomTrial("learns"), {}
    while sum(counts.values()) < PAIRS * EACH:
        proposal = evaluate_cost(space, space.suggest(trial))
        pair = _head_and_loss(proposal.params)
        if proposal.cost.macs < LARGEST and counts.get(pair, 0) < EACH:
            counts[pair] = counts.get(pair, 0) + 1
            yield proposal


def _head_and_loss(params) -> tuple[str, str]:
    return params["head"], params[f"{params['head']}.loss"]
