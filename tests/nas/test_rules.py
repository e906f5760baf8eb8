import torch

from detector.recipe import DataChoice, Recipe
from nas.models import Origin
from nas.rules import check_rules, imagenet_weights
from trials.objective import Objective
from trials.record import Cost

COST = Cost(params=426_608, macs=1_029_700_000)


def origin(**changes) -> Origin:
    return Origin(**{
        "title": "trial 3 of study x", "data": DataChoice(path="data/widerface"),
        "data_name": "WIDER FACE", "data_fingerprint": "0123456789ab", "images": 3_400,
        "objective": Objective()} | changes)


def answers(cost=COST, thop=(426_608, 1_029_700_000), recipe=None, source=None):
    rules = check_rules(cost, thop, recipe or Recipe(), source or origin())
    return {rule.rule.split()[0]: rule for rule in rules}


def test_a_legal_entry_holds_all_rules_with_numbers():
    rules = answers()
    assert all(rule.holds for rule in rules.values())
    assert "426,608" in rules["at"].evidence
    assert "from scratch" in rules["pretrained"].evidence
    assert "3,400 images of data/widerface" in rules["no"].evidence
    assert "thop 0.1.1" in rules["size"].evidence and "1.0297 G" in rules["size"].evidence


def test_the_cap_is_45_million():
    assert answers(thop=(45_000_000, 1))["at"].holds is True
    assert answers(thop=(45_000_001, 1))["at"].holds is False


def test_counts_that_disagree_are_told():
    rule = answers(thop=(426_608, 1_029_700_001))["size"]
    assert rule.holds is False and "own count" in rule.evidence


def test_pretraining_needs_known_weights(tmp_path):
    assert answers(recipe=Recipe(weights="imagenet"))["pretrained"].holds is True
    known = origin(weights_sha256="75c37f8d438b7c6aed2e6b310fd0540c"
                                  "40dabf0dd820770bd7082668dfd7c1c1")
    assert answers(recipe=Recipe(weights="x.tar"), source=known)["pretrained"].holds is True
    path = tmp_path / "mine.pt"
    torch.save({}, path)
    rule = answers(recipe=Recipe(weights=str(path)))["pretrained"]
    assert rule.holds is None and "mine.pt" in rule.evidence


def test_torchvisions_files_are_known_by_hash():
    assert imagenet_weights("f37072fd" + "0" * 56) == "torchvision's resnet18 (IMAGENET1K_V1)"
    assert imagenet_weights("0" * 64) is None


def test_data_rule():
    assert answers(source=origin(images=12_880))["no"].holds is False
    assert answers(source=origin(data=DataChoice(path="synthetic")))["no"].holds is False
    included = answers(source=origin(with_holdout=True))["no"]
    assert included.holds and "hold-out included" in included.evidence


def test_what_is_not_recorded_is_not_known():
    rules = check_rules(COST, (COST.params, COST.macs), None, None)
    assert [rule.holds for rule in rules] == [True, None, None, True]
