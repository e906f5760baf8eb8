"""Training with a teacher: it is learned from, stays as it is, and is the same after a resume."""

import shutil
from dataclasses import replace

import helpers
import pytest
import torch

from detector.base.errors import UserError
from detector.boxes.anchors import priors
from detector.boxes.logits import face_scores
from detector.config.detector import Anchors, Head, Pixels
from detector.config.recipe import Augmentation, Distillation, Evaluation, Optimizer, Recipe
from detector.data.loader import batches
from detector.losses.distillation import MIN_SCORE
from detector.network.model import build_detector
from detector.training import fit
from detector.training.optim import make_optimizer, set_lr
from detector.training.step import Precision, load_teacher, memory_format, train_step
from detector.training.stepper import Stepper
from detector.weights import checkpoint
from detector.weights.file_names import LAST
from detector.weights.files import load_weights

RETINAFACE = helpers.TINY_DETECTOR
SCRFD = replace(
    RETINAFACE, head=Head(score="sigmoid", coding="distance", shared=True, landmarks=False)
)
YUNET = replace(
    RETINAFACE,
    head=Head(score="objectness", coding="point"),
    anchors=Anchors(name="cell", offset=0),
    pixels=Pixels(order="rgb", mean=(0, 0, 0), std=(255, 255, 255)),
)
PAIRS = {
    "retinaface, scrfd": (RETINAFACE, SCRFD),
    "scrfd, yunet": (SCRFD, YUNET),
    "yunet, retinaface": (YUNET, RETINAFACE),
}
RECIPE = Recipe(
    epochs=2,
    size=64,
    batch_size=5,
    seed=3,
    accumulate=2,
    augmentation=Augmentation(scales=(0.6, 1)),
    optimizer=Optimizer(lr=0.01, schedule="cosine", clip_norm=10.0, ema=0.9),
    evaluation=Evaluation(size=96, every=0),
)
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def run(data, workdir, teacher, recipe=RECIPE, **options):
    return list(
        fit.fit(
            RETINAFACE,
            recipe,
            data.train,
            None,
            workdir=workdir,
            device="cpu",
            teacher=teacher,
            **options,
        )
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("retinaface, scrfd", "bf16"),
        ("scrfd, yunet", "bf16"),
        ("yunet, retinaface", "fp16"),
    ],
)
def test_some_steps_draw_the_student_to_its_teacher(tiny_data, tmp_path, name, precision):
    student, teacher = PAIRS[name]
    only = Distillation(score_weight=10, box_weight=10)
    recipe = replace(
        RECIPE, precision=precision, distillation=only, optimizer=Optimizer(kind="adamw")
    )
    file = helpers.teacher_file(tmp_path, teacher)
    network = load_teacher(file, student, recipe, CPU)
    before = {key: value.clone() for key, value in network._net.state_dict().items()}
    batch = next(iter(batches(tiny_data.train, recipe, epoch=1, seed=0)))
    model = build_detector(student).to(memory_format=memory_format(recipe))
    optimizer, scaling = make_optimizer(model, recipe.optimizer), Precision(recipe, CPU)
    set_lr(optimizer, 0.02)
    history = [
        train_step(model, optimizer, batch, student, recipe, scaling, network) for _ in range(25)
    ]
    for term in ("teacher_score", "teacher_box"):
        assert history[-1][term] < 0.85 * history[0][term], term
    assert all(value.equal(before[key]) for key, value in network._net.state_dict().items())
    assert not any(weight.requires_grad for weight in network._net.parameters())


def test_the_teacher_sees_the_pixels_that_it_was_trained_on(tmp_path):
    file = helpers.teacher_file(tmp_path, YUNET)
    network = load_teacher(file, RETINAFACE, RECIPE, CPU)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    targets = network.targets(images, priors(RETINAFACE, (64, 96)))
    plain = build_detector(YUNET)
    load_weights(plain, YUNET, str(file.path))
    plain.eval().normalise = torch.nn.Identity()
    with torch.no_grad():
        expected = face_scores(plain(images.flip(1) / 255))  # one point a cell, as its targets
    assert torch.allclose(targets.scores, expected, atol=1e-6)
    assert targets.normalizer.item() == pytest.approx(
        expected[expected >= MIN_SCORE].sum().item(), rel=1e-5
    )


def test_stop_and_resume_equals_uninterrupted(tiny_data, tmp_path):
    teacher = helpers.teacher_file(tmp_path, SCRFD)
    straight = run(tiny_data, tmp_path / "a", teacher)
    assert {"teacher_score", "teacher_box"} <= set(straight[0].losses)
    run(tiny_data, tmp_path / "b", teacher, until=1)
    moved = replace(teacher, path=shutil.copy(teacher.path, tmp_path / "moved.pt"))
    resumed = run(tiny_data, tmp_path / "b", moved)
    assert [epoch.losses for epoch in resumed] == [epoch.losses for epoch in straight[1:]]
    a, b = (checkpoint.load(tmp_path / name / LAST) for name in "ab")
    assert all(a.model[key].equal(b.model[key]) for key in a.model)
    assert a.model.keys() == build_detector(RETINAFACE).state_dict().keys()  # none of the teacher's
    assert a.state["teacher"]["weights"]["sha256"] == teacher.record.weights.sha256


def test_another_teacher_is_refused(tiny_data, tmp_path):
    teachers = [helpers.teacher_file(tmp_path, SCRFD, seed) for seed in (1, 2)]
    run(tiny_data, tmp_path / "a", teachers[0], until=1)
    with pytest.raises(UserError, match=r"another teacher \(sha256 \w{12} there, sha256 \w{12} he"):
        run(tiny_data, tmp_path / "a", teachers[1])
    with pytest.raises(UserError, match=r"another teacher \(sha256 \w{12} there, none here\)"):
        run(tiny_data, tmp_path / "a", None)
    run(tiny_data, tmp_path / "b", None, until=1)
    with pytest.raises(UserError, match=r"another teacher \(none there, sha256"):
        run(tiny_data, tmp_path / "b", teachers[0])
    shutil.copy(teachers[1].path, teachers[0].path)
    with pytest.raises(UserError, match=r"teacher-1\.pt: the teacher's weights have changed"):
        run(tiny_data, tmp_path / "a", teachers[0])


def test_weights_of_the_recipe_say_how_much_is_learned_from_it(tiny_data, tmp_path):
    """With none of it, the student trains as if it were alone."""
    nothing = replace(RECIPE, distillation=Distillation(score_weight=0, box_weight=0))
    run(tiny_data, tmp_path / "a", helpers.teacher_file(tmp_path, SCRFD), nothing, until=1)
    run(tiny_data, tmp_path / "b", None, nothing, until=1)
    a, b = (checkpoint.load(tmp_path / name / LAST).model for name in "ab")
    assert all(torch.allclose(a[key], b[key], rtol=1e-4, atol=1e-5) for key in a)


def test_a_stepper_takes_the_teacher_along(tiny_data, tmp_path):
    teacher = load_teacher(helpers.teacher_file(tmp_path, SCRFD), RETINAFACE, RECIPE, CPU)
    model, precision = build_detector(RETINAFACE), Precision(RECIPE, CPU)
    optimizer = make_optimizer(model, RECIPE.optimizer)
    stepper = Stepper(model, optimizer, RETINAFACE, RECIPE, precision, teacher=teacher)
    batch = next(iter(batches(tiny_data.train, RECIPE, epoch=1, seed=0)))
    stepper.step(0, [batch.to(CPU, memory_format(RECIPE))], 0.01, remaining=1)
    (result,) = stepper.results()
    assert result.losses["teacher_score"] > 0
