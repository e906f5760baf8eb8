import torch

from detector.config.recipe import DataChoice, Recipe
from detector.weights.pretrained import Start, Teacher
from nas.models.competition_rules import check_rules, imagenet_weights
from trials.objective import Objective
from trials.record import Cost
from trials.stored import Origin

COST = Cost(params=426_608, macs=1_029_700_000)


def origin(**changes) -> Origin:
    return Origin(
        **{
            "title": "trial 3 of study x",
            "data": DataChoice(path="data/widerface"),
            "data_name": "WIDER FACE",
            "data_fingerprint": "0123456789ab",
            "images": 3_400,
            "objective": Objective(),
        }
        | changes
    )


def rules_of(cost=COST, thop=(426_608, 1_029_700_000), recipe=None, source=None):
    rules = check_rules(cost, thop, recipe or Recipe(), source or origin())
    return {rule.rule.split()[0]: rule for rule in rules}


def test_a_valid_entry_complies_with_all_rules():
    rules = rules_of()
    assert all(rule.holds for rule in rules.values())
    assert "426,608" in rules["at"].evidence
    assert "from scratch" in rules["pretrained"].evidence
    assert "3,400 images of data/widerface" in rules["no"].evidence
    assert "thop 0.1.1" in rules["size"].evidence and "1.0297 G" in rules["size"].evidence


def test_the_cap_is_45_million():
    assert rules_of(thop=(45_000_000, 1))["at"].holds is True
    assert rules_of(thop=(45_000_001, 1))["at"].holds is False


def test_counts_that_disagree_are_reported():
    rule = rules_of(thop=(426_608, 1_029_700_001))["size"]
    assert rule.holds is False and "but the count from the configuration" in rule.evidence


def test_pretraining_needs_known_weights(tmp_path):
    assert rules_of(recipe=Recipe(weights="imagenet"))["pretrained"].holds is True
    known = origin(
        weights_sha256="75c37f8d438b7c6aed2e6b310fd0540c40dabf0dd820770bd7082668dfd7c1c1"
    )
    assert rules_of(recipe=Recipe(weights="x.tar"), source=known)["pretrained"].holds is True
    path = tmp_path / "mine.pt"
    torch.save({}, path)
    rule = rules_of(recipe=Recipe(weights=str(path)))["pretrained"]
    assert rule.holds is None and "mine.pt" in rule.evidence


def start(**changes) -> Start:
    return Start(
        **{
            "source": "w.pt",
            "title": "trial 1 of study x",
            "part": "detector",
            "sha256": "ab" * 32,
            "from_here": True,
            "trained_on": {
                "title": "trial 1 of study x",
                "data_name": "WIDER FACE",
                "data_fingerprint": "0123456789ab",
                "images": 3_400,
                "path": "data/widerface",
            },
        }
        | changes
    )


def test_a_chain_of_initializations_is_followed_to_its_start():
    recipe = Recipe(weights="w.pt")
    backbone = start(
        source="r18.pth",
        part="backbone",
        sha256="f37072fd" + "0" * 56,
        from_here=False,
        trained_on=None,
    )
    rules = rules_of(recipe=recipe, source=origin(start=start(before=backbone)))
    assert rules["pretrained"].holds is True and rules["no"].holds is True
    assert "w.pt, sha256 abababababab (trial 1 of study x" in rules["pretrained"].evidence
    assert "torchvision's resnet18" in rules["pretrained"].evidence
    rules = rules_of(recipe=recipe, source=origin(start=start()))
    assert rules["pretrained"].holds is True and "from scratch" in rules["pretrained"].evidence
    strange = start(source="x.pth", sha256="0" * 64, from_here=False, trained_on=None)
    rules = rules_of(recipe=recipe, source=origin(start=start(before=strange)))
    assert rules["pretrained"].holds is None and "x.pth" in rules["pretrained"].evidence
    assert rules["no"].holds is None and "x.pth" in rules["no"].evidence


def test_other_images_of_pretrained_weights_are_reported():
    other = start().trained_on | {"data_fingerprint": "ba9876543210", "images": 12_880}
    rule = rules_of(recipe=Recipe(weights="w.pt"), source=origin(start=start(trained_on=other)))[
        "no"
    ]
    assert rule.holds is None and "12,880 images of data/widerface" in rule.evidence


def test_torchvision_files_are_known_by_hash():
    assert imagenet_weights("f37072fd" + "0" * 56) == "torchvision's resnet18 (IMAGENET1K_V1)"
    assert imagenet_weights("0" * 64) is None


def test_data_rule():
    assert rules_of(source=origin(images=12_880))["no"].holds is False
    assert rules_of(source=origin(data=DataChoice(path="synthetic")))["no"].holds is False
    included = rules_of(source=origin(with_holdout=True))["no"]
    assert included.holds and "hold-out included" in included.evidence


def test_unrecorded_facts_leave_a_rule_undecided():
    rules = check_rules(COST, (COST.params, COST.macs), None, None)
    assert [rule.holds for rule in rules] == [True, None, None, True]


def taught(**changes) -> Teacher:
    return Teacher(weights=start(**changes), describe="mnv1", params=3_000_000, macs=2_500_000_000)


def test_a_teacher_is_stated_with_its_size_data_and_pretraining():
    imagenet = start(
        source="r18.pth", part="backbone", sha256="f37072fd" + "0" * 56, from_here=False
    )
    rules = rules_of(source=origin(teacher=taught(source="t.pt", before=imagenet)))
    text = "taught by t.pt, sha256 abababababab (trial 1 of study x, 3,000,000 parameters, 2.5000 G"
    for name in ("pretrained", "no"):
        assert rules[name].holds is True and text in rules[name].evidence
    assert rules["pretrained"].evidence.startswith("trained from scratch, no pretrained weights; ")
    assert "torchvision's resnet18" in rules["pretrained"].evidence
    assert "trained on images of the same subset" in rules["no"].evidence
    assert rules["at"].evidence == "426,608 parameters of the built network"  # without the teacher


def test_a_teacher_trained_on_other_images_breaks_the_rule():
    seen = start().trained_on | {"fraction": 1.0, "seed": 0, "holdout": 0.2}
    other = seen | {"data_fingerprint": "ba9876543210", "images": 12_880}
    for data in (other, other | {"fraction": 0.333, "holdout": 0.1}, other | {"path": "elsewhere"}):
        rule = rules_of(source=origin(teacher=taught(trained_on=data)))["no"]
        assert rule.holds is False and f"12,880 images of {data['path']}" in rule.evidence
    same = other | {"holdout": 0.1}  # the same images with another hold-out
    assert rules_of(source=origin(teacher=taught(trained_on=same)))["no"].holds is True


def test_of_a_foreign_teacher_nothing_is_known():
    foreign = taught(source="x.pth", from_here=False, trained_on=None)
    rules = rules_of(source=origin(teacher=foreign))
    assert rules["no"].holds is None and rules["pretrained"].holds is None
    assert (
        "x.pth" in rules["no"].evidence and "not record its training data" in rules["no"].evidence
    )
    assert "whose pretraining is not recorded" in rules["pretrained"].evidence
    too_many = rules_of(source=origin(teacher=foreign, images=12_880))["no"]
    assert too_many.holds is False  # what is known breaks it, whatever is unknown


def test_who_taught_the_teacher_and_what_it_started_from_counts():
    foreign = taught(source="x.pth", from_here=False, trained_on=None)
    other = start().trained_on | {"data_fingerprint": "ba9876543210"}
    for weights, data, pretrained in (
        (start(teacher=foreign), None, None),
        (start(before=start(teacher=foreign)), None, None),
        (start(before=start(source="x.pth", from_here=False, trained_on=None)), None, None),
        (start(teacher=taught(trained_on=other)), False, True),
        (start(before=start(teacher=taught(trained_on=other))), False, True),
        (start(teacher=taught()), True, True),
    ):
        chain = Teacher(weights=weights, describe="mnv1", params=1, macs=1)
        for recipe, source in (
            (Recipe(), origin(teacher=chain)),
            (Recipe(weights="w.pt"), origin(start=weights)),
        ):
            rules = rules_of(recipe=recipe, source=source)
            assert rules["no"].holds is data, rules["no"].evidence
            assert rules["pretrained"].holds is pretrained, rules["pretrained"].evidence
    stored = Origin.from_dict(origin(teacher=foreign).to_dict())
    assert stored == origin(teacher=foreign) and "teacher" not in origin().identity
