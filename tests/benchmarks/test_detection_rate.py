"""Detection on one thread, beside the same network with its batch normalisation."""

import time

import pytest
import torch

from detector.config.presets import load_preset
from detector.config.recipe import DataChoice, Evaluation
from detector.data.cache import cache_images
from detector.data.open import open_data
from detector.inference import predict
from detector.network.model import build_detector

REPEATS = 7

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("name", ["retinaface_mobile025", "yunet_s", "scrfd_0.5g"])
def test_folding_saves_a_tenth(name, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    config = load_preset(name)[0]
    settings = Evaluation(size=416, score_threshold=1.0)  # the network alone
    images = cache_images(open_data(DataChoice(path="synthetic")).holdout, tmp_path, 416)
    model = build_detector(config)
    prepare = {
        "folded": predict.for_detection,
        "plain": lambda model, device: model.to(device).eval(),
    }
    times = {kind: [] for kind in prepare}
    for _ in range(REPEATS):
        for kind, function in prepare.items():  # in turns, so that noise affects both alike
            monkeypatch.setattr(predict, "for_detection", function)
            started = time.process_time()
            predict.detect(model, config, images, settings)
            times[kind].append(time.process_time() - started)
    folded, plain = map(min, times.values())
    print(
        f"\n{name}, 416 px: {len(images) / folded:.0f} images/s, with batch normalisation "
        f"{len(images) / plain:.0f}, ratio of times {folded / plain:.2f}"
    )
    assert folded <= 0.9 * plain
