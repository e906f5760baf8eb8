"""The rates of the GPU report: ours and the peer's, each measured in its own process."""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gpu_bench import BASELINE, Sizes, sizes_of, write


def measure_rates(args: Namespace) -> None:
    """Write the rows to a file, one after another; a row without a rate has the reason."""
    from detector.training.fit import choose_device

    rows: dict[str, dict] = {}
    measures = (our_rates if args.measure == "ours" else peer_rates)(
        args, sizes_of(args), choose_device(args.device)
    )
    for name, rate in measures.items():
        try:
            rows[name] = rate()
        except Exception as error:  # the other rates are still useful
            traceback.print_exc()
            rows[name] = {"note": f"failed: {type(error).__name__}: {error}".splitlines()[0]}
        print(f"{name}: {rows[name]}")
        write(args.work / f"rates-{args.measure}.json", rows)


def our_rates(args: Namespace, sizes: Sizes, device) -> dict[str, Callable[[], dict]]:
    """Measurements of this project by row."""
    common = (sizes.size, sizes.batch, sizes.rate_seconds, device)
    return {
        f"step of {BASELINE}": lambda: step_rate(BASELINE, *common),
        f"whole training of {BASELINE}": lambda: training_rate(args, sizes, device),
        f"whole training of {BASELINE}, from memory of the CPU": lambda: training_rate(
            args, sizes, device, resident=False
        ),
        f"step of {BASELINE} without a graph": lambda: step_rate(BASELINE, *common, graph=False),
        f"evaluation of {BASELINE}": lambda: evaluation_rate(args, sizes, device),
        "step of yunet_n": lambda: step_rate("yunet_n", *common),
        "step of scrfd_0.5g": lambda: step_rate("scrfd_0.5g", *common),
    }


def peer_rates(args: Namespace, sizes: Sizes, device) -> dict[str, Callable[[], dict]]:
    """Measurements of the peer by row."""
    common = (args.peer, sizes.size, sizes.batch, sizes.rate_seconds, device)
    rates = {
        f"step of the peer, cudnn.benchmark {choice}": lambda choice=choice: peer_step_rate(
            *common, benchmark=choice
        )
        for choice in (True, False)
    }
    if args.data != "synthetic":
        rates["whole training of the peer"] = lambda: peer_training_rate(args, sizes, device)
    return rates


def rate_of(step: Callable[[], object], images: int, seconds: float, device) -> dict:
    """Images per second of a step, after ten uncounted steps."""
    for _ in range(10):
        step()
    synchronize(device)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    synchronize(device)
    return per_second(steps * images, started)


def per_second(images: int, started: float) -> dict:
    return {"images a second": round(images / (time.perf_counter() - started), 1)}


def synchronize(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def examples(size: int, batch: int):
    """Random uint8 images [B, 3, S, S] with four faces each: boxes [B, 4, 4] xyxy and landmarks
    [B, 4, 5, 2] in px."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)
    side = size * (0.03 + 0.3 * torch.rand(batch, 4, 1, generator=generator) ** 3)
    corner = torch.rand(batch, 4, 2, generator=generator) * (size - side)
    points = corner[:, :, None] + side[..., None] * torch.rand(batch, 4, 5, 2, generator=generator)
    return images.permute(0, 3, 1, 2), torch.cat((corner, corner + side), 2), points


def step_rate(preset: str, size: int, batch: int, seconds: float, device, **options) -> dict:
    """Images per second of our training step; `options` change the preset's recipe."""
    import torch

    from detector.config.presets import load_preset
    from detector.data.loader import Batch
    from detector.network.model import build_detector
    from detector.training.optim import make_optimizer
    from detector.training.step import Precision, memory_format, set_train_mode
    from detector.training.stepper import MIN_STEPS_FOR_GRAPHS, TIMED_STEPS, WARMUP_STEPS, Stepper

    config, recipe = load_preset(preset)
    graph = options.pop("graph", None)
    recipe = replace(recipe, size=size, batch_size=batch, **options)
    images, boxes, points = examples(size, batch)
    ignore = torch.zeros(boxes.shape[1], dtype=torch.bool)
    fixed = Batch(
        images,
        [{"boxes": own, "landmarks": marks, "ignore": ignore} for own, marks in zip(boxes, points)],
    )
    model = build_detector(config).to(device, memory_format=memory_format(recipe))
    set_train_mode(model, recipe)
    optimizer = make_optimizer(model, replace(recipe.optimizer, lr=1e-5))
    stepper = Stepper(model, optimizer, config, recipe, Precision(recipe, device), graph)
    parts = [fixed.to(device, memory_format(recipe))]

    def step() -> None:
        stepper.step(0, parts, 1e-5, MIN_STEPS_FOR_GRAPHS)
        stepper.results()

    with torch.cuda.stream(stepper.stream):  # no effect on a CPU
        for _ in range(WARMUP_STEPS + 2 * TIMED_STEPS if device.type == "cuda" else 0):
            step()
        stepper.flush()
        rate = rate_of(step, batch, seconds, device)
    timings = ", ".join(f"{kind} {value:.1f} ms" for kind, value in stepper.milliseconds.items())
    return rate | ({"note": timings} if timings else {})


class Repeated:
    """Cached images, repeated so that an epoch is as long as that of a large data set."""

    def __init__(self, images, count: int):
        self._images, self._indices = images, [index % len(images) for index in range(count)]
        self.name, self.fingerprint = images.name, images.fingerprint
        self.labels = [images.labels[index] for index in self._indices]
        self.shapes = [images.shapes[index] for index in self._indices]
        self.starts, self.pixels, self.nbytes = (
            images.starts[self._indices],
            images.pixels,
            images.nbytes,
        )

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int):
        return self._images.image(self._indices[index])


def training_rate(args: Namespace, sizes: Sizes, device, resident: bool | None = None) -> dict:
    """Images per second of `fit`, from the end of one epoch to the next, without the first epoch.

    Args:
        resident: whether the images are in the GPU's memory; None means that training decides.
    """
    from detector.config.presets import load_preset
    from detector.config.recipe import DataChoice
    from detector.data.cache import cache_images
    from detector.data.open import open_data
    from detector.training.fit import fit

    config, recipe = load_preset(BASELINE)
    rendered_on_gpu = replace(recipe.augmentation, interpolation="area_linear")
    recipe = replace(recipe, size=sizes.size, batch_size=sizes.batch, augmentation=rendered_on_gpu)
    data = open_data(DataChoice(path=args.data))
    images = cache_images(data.all_train, args.work / "cache", None)
    repeated = Repeated(images, sizes.epoch_images)
    rates: list[float] = []
    last, until = time.perf_counter(), math.inf
    for epoch in fit(
        config,
        recipe,
        repeated,
        None,
        device=args.device,
        workdir=Path(tempfile.mkdtemp(dir=args.work)),
        resident=resident,
    ):
        now = time.perf_counter()
        rates.append(epoch.images / (now - last))
        until = now + 3 * sizes.rate_seconds if len(rates) == 1 else until
        last = now
        if len(rates) > 1 and now > until:
            break
    return {
        "images a second": round(statistics.median(rates[1:]), 1),
        "note": f"median of {len(rates) - 1} epochs of {epoch.images} images"
        + (", decoded, cropped and resized by threads" if resident is False else ""),
    }


def evaluation_rate(args: Namespace, sizes: Sizes, device) -> dict:
    """Images per second of `evaluate` on the val images, after a few uncounted ones."""
    from detector.config.presets import load_preset
    from detector.config.recipe import DataChoice, Evaluation
    from detector.data.open import open_data
    from detector.data.splits import Subset
    from detector.inference.predict import evaluate
    from detector.metrics.wider import official_ground_truth
    from detector.network.model import build_detector
    from detector.weights.files import load_weights

    config, lists = load_preset(BASELINE)[0], Path(args.data) / "ground_truth"
    model, note = build_detector(config), "random weights"
    if args.released is not None:
        load_weights(model, config, str(args.released))
        note = "released weights"
    val = open_data(DataChoice(path=args.data), parts=("val",)).val
    settings = Evaluation(size=None if sizes.test_size == "original" else int(sizes.test_size))
    truth = (
        official_ground_truth(lists).subset(label.name for label in val.labels)
        if lists.is_dir()
        else None
    )
    evaluate(model, config, Subset(val, range(min(16, len(val))), val.name), settings, device)
    started = time.perf_counter()
    ap = evaluate(model, config, val, settings, device, truth)
    return per_second(len(val), started) | {
        "note": f"{len(val)} images; {note}, AP easy / medium / hard "
        + " / ".join(f"{value:.4f}" for value in ap.values())
    }


# -- the peer, biubug6/Pytorch_Retinaface: its own network, loss, loader and settings -------------


def peer_step(peer: Path, size: int, device) -> Callable:
    """The peer's training step: a function of images and targets from its loader."""
    import torch

    if str(peer) not in sys.path:
        sys.path.insert(0, str(peer))
    if device.type == "cpu":  # it calls .cuda() on every machine
        torch.Tensor.cuda = lambda self, *args, **kwargs: self
    from data import cfg_mnet
    from layers.functions.prior_box import PriorBox
    from layers.modules import MultiBoxLoss
    from models.retinaface import RetinaFace

    net = RetinaFace(cfg_mnet | {"pretrain": False}).to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    criterion = MultiBoxLoss(2, 0.35, True, 0, True, 7, 0.35, False)
    priors = PriorBox(cfg_mnet, image_size=(size, size)).forward().to(device)

    def step(images: torch.Tensor, targets: list[torch.Tensor]) -> None:
        outputs = net(images.to(device))
        optimizer.zero_grad()
        box, score, points = criterion(outputs, priors, [own.to(device) for own in targets])
        (cfg_mnet["loc_weight"] * box + score + points).backward()
        optimizer.step()
        for loss in (box, score, points):
            loss.item()  # the peer prints them after each step

    return step


def peer_step_rate(
    peer: Path, size: int, batch: int, seconds: float, device, *, benchmark: bool
) -> dict:
    """Images per second of the peer's training step on the same batch as ours.

    Args:
        benchmark: value of `cudnn.benchmark`; the peer's train.py sets True.
    """
    import torch

    step = peer_step(peer, size, device)
    images, boxes, points = examples(size, batch)
    images = (images - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)).contiguous().to(device)
    targets = list(
        (
            torch.cat((boxes, points.flatten(2), torch.full((batch, 4, 1), float(size))), 2) / size
        ).to(device)
    )
    torch.backends.cudnn.benchmark = benchmark
    return rate_of(lambda: step(images, targets), batch, seconds, device)


def peer_training_rate(args: Namespace, sizes: Sizes, device) -> dict:
    """Images per second of the peer's training with its loader, after ten steps."""
    import torch

    step = peer_step(args.peer, sizes.size, device)
    from data import WiderFaceDetection, detection_collate, preproc

    dataset = WiderFaceDetection(str(peer_labels(args)), preproc(sizes.size, (104, 117, 123)))
    workers = 4  # as in its train.py
    loader = torch.utils.data.DataLoader(
        dataset,
        sizes.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=detection_collate,
        drop_last=True,
    )

    def forever():
        while True:
            yield from loader

    batches = forever()
    torch.backends.cudnn.benchmark = True
    rate = rate_of(lambda: step(*next(batches)), sizes.batch, 2 * sizes.rate_seconds, device)
    return rate | {"note": f"{workers} processes load, as in its train.py"}


def peer_labels(args: Namespace) -> Path:
    """The training images in the layout that the peer reads; returns its label.txt."""
    from detector.config.recipe import DataChoice
    from detector.data.open import open_data

    data = Path(args.data)
    images = next(
        path for path in (data / "WIDER_train/images", data / "train/images") if path.is_dir()
    )
    folder = args.work / "peer"
    folder.mkdir(exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to(images.resolve())
    lines = []
    for label in open_data(DataChoice(path=args.data)).all_train.labels:
        boxes = label.boxes[~label.ignore]
        if len(boxes):  # the peer needs a face in every image
            lines.append(f"# {label.name}")
            lines += [
                " ".join(f"{value:g}" for value in (x1, y1, x2 - x1, y2 - y1, *[-1.0] * 16))
                for x1, y1, x2, y2 in boxes.tolist()
            ]
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return folder / "label.txt"
