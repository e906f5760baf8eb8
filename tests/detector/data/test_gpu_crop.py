"""The GPU's crops against OpenCV's: Triton's kernel, run by its interpreter on a CPU."""

from importlib.util import find_spec

import helpers
import pytest

SCRIPT = """
import cv2, numpy as np, torch
from detector.data.gpu_crop import render
from detector.config.recipe import Augmentation
from detector.data.colors import sample_colors
from detector.data.random_numbers import NUMBERS
from detector.data.transforms import Transforms

rng, size = np.random.default_rng(0), 48
images = [cv2.GaussianBlur(rng.integers(0, 256, (h, w, 3), np.uint8), (0, 0), 1.5)
          for h, w in ((50, 70), (90, 60), (40, 40), (200, 150), (64, 64))]
windows = [(5, 3, 30), (-10, 4, 77), (0, 0, 40), (-5, 20, 180), (2, 3, 48)]
settings = Augmentation(photometric=1, hue=18, permute_channels=1, padding=(20, 128, 250))
colors = np.concatenate([sample_colors(settings, rng.random((3, NUMBERS))), [np.eye(3, 4)] * 2])
own = Transforms(np.array(windows), colors, np.array([True, False, False, True, True]), settings)
flat = torch.from_numpy(np.concatenate([image.ravel() for image in images]))
starts = torch.tensor(np.cumsum([0] + [image.size for image in images[:-1]]))
places = torch.tensor([[*image.shape[:2], *window, int(flip)]
                       for image, window, flip in zip(images, windows, own.flips)],
                      dtype=torch.int32)
found = render(flat, starts, places, torch.tensor(colors, dtype=torch.float32), size, 5,
               settings.padding)
assert found.is_contiguous(memory_format=torch.channels_last)
for number, image in enumerate(images):
    wanted = np.empty((size, size, 3), np.uint8)
    own.render(number, image, wanted)
    apart = np.abs(found[number].permute(1, 2, 0).numpy().astype(int) - wanted)
    assert apart.max() <= 2 and (apart > 1).mean() < 0.01, (number, apart.max())
print("same")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_crops_are_those_of_opencv():
    """Enlarged, shrunk, as they are, and beyond the image; colours changed, permuted, flipped."""
    assert "same" in helpers.run_interpreted(SCRIPT)
