"""Augmentation against closed forms, and its properties on random faces."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detector.config.recipe import Augmentation
from detector.data.colors import recolor, sample_colors
from detector.data.crops import crop_faces, crop_image, sample_windows
from detector.data.faces import Faces
from detector.data.random_numbers import NUMBERS
from detector.data.transforms import augment, flip

_SEEDS = st.integers(0, 2**31)
PAD = Augmentation().padding


def sample_window(size, faces, scales, rng, rule="whole_face"):
    numbers = rng.random((1, NUMBERS))
    own = Augmentation(scales=scales, crop=rule)
    return tuple(sample_windows(np.array([size]), faces, own, numbers)[0].tolist())


def crop(image, faces, window, size):
    out = np.empty((size, size, 3), np.uint8)
    crop_image(image, window, out, PAD)
    return out, crop_faces(faces.batched, np.array([window]), size)


def _scene(seed, count=None):
    """A random image and faces within it, each with landmarks inside its box."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 200, 2)
    count = int(rng.integers(0, 6)) if count is None else count
    corners = rng.random((count, 2)) * (width - 4, height - 4)
    sides = 2 + rng.random((count, 2)) * (np.array([width, height]) - corners - 2)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    landmarks = (boxes[:, None, :2] + rng.random((count, 5, 2)) * sides[:, None]).astype(np.float32)
    landmarks[rng.random(count) < 0.3] = np.nan
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return image, Faces(boxes, landmarks, rng.random(count) < 0.2), rng


@settings(max_examples=150, deadline=None)
@given(_SEEDS)
def test_augmented_faces_lie_in_the_image_and_landmarks_in_their_box(seed):
    image, faces, rng = _scene(seed)
    before = image.copy()
    settings_ = Augmentation(scales=(0.3, 0.7, 1.0, 1.6), min_face=4)
    result, seen = augment(image, faces, 64, settings_, rng)
    assert result.shape == (64, 64, 3) and result.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    assert seen.boxes.dtype == seen.landmarks.dtype == np.float32 and seen.ignore.dtype == bool
    assert len(seen.boxes) == len(seen.landmarks) == len(seen.ignore) <= len(faces.boxes)
    assert (seen.boxes >= 0).all() and (seen.boxes <= 64).all()
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()
    low, high = seen.boxes[:, None, :2] - 0.01, seen.boxes[:, None, 2:] + 0.01
    inside = (seen.landmarks >= low) & (seen.landmarks <= high)
    assert (inside | np.isnan(seen.landmarks)).all()
    sides = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1, initial=0)
    assert seen.ignore[sides < 4].all()


@pytest.mark.parametrize("rule", ["whole_face", "face_centre"])
@settings(max_examples=150, deadline=None)
@given(_SEEDS)
def test_a_crop_keeps_a_face_and_exactly_those_centred_in_it(rule, seed):
    image, faces, rng = _scene(seed)
    assume((~faces.ignore).any())
    x, y, side = window = sample_window(image.shape[1::-1], faces, (0.3, 0.6, 1.3), rng, rule)
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    kept = ((centres > (x, y)) & (centres < (x + side, y + side))).all(axis=1)
    assert kept[~faces.ignore].any()
    _, seen = crop(image, faces, window, 96)
    assert len(seen.boxes) == kept.sum()
    # what was wholly inside keeps its centre, scaled
    whole = (
        kept
        & (faces.boxes >= (x, y, x, y)).all(axis=1)
        & (faces.boxes <= (x + side, y + side) * 2).all(axis=1)
    )
    expected = (centres[whole] - (x, y)) * 96 / side
    np.testing.assert_allclose(seen.centres[whole[kept]], expected, atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(_SEEDS)
def test_flipping_twice_changes_nothing(seed):
    image, faces, _ = _scene(seed)
    once = flip(image.copy(), faces)
    np.testing.assert_array_equal(once[0], image[:, ::-1])
    twice = flip(once[0].copy(), once[1])
    np.testing.assert_array_equal(twice[0], image)
    np.testing.assert_allclose(twice[1].boxes, faces.boxes, atol=1e-4)
    np.testing.assert_allclose(twice[1].landmarks, faces.landmarks, atol=1e-4)


def test_flip_swaps_left_and_right():
    faces = Faces(
        np.float32([[1, 2, 5, 8]]),
        np.float32([[[2, 3], [4, 3], [3, 5], [2.5, 7], [3.5, 7]]]),
        np.array([False]),
    )
    _, flipped = flip(np.zeros((10, 10, 3), np.uint8), faces)
    np.testing.assert_array_equal(flipped.boxes, [[5, 2, 9, 8]])
    np.testing.assert_array_equal(flipped.landmarks, [[[6, 3], [8, 3], [7, 5], [6.5, 7], [7.5, 7]]])


def test_crop_of_the_whole_square_is_the_resize():
    image, faces, _ = _scene(3, count=4)
    side = min(image.shape[:2])
    result, seen = crop(image, faces, (0, 0, side), 32)
    np.testing.assert_array_equal(
        result,
        cv2.resize(
            image[:side, :side],
            (32, 32),
            interpolation=cv2.INTER_AREA if side > 32 else cv2.INTER_LINEAR,
        ),
    )
    assert (seen.boxes <= 32).all()


def test_beyond_the_image_is_the_mean_colour():
    image = np.full((20, 30, 3), 200, np.uint8)
    none = Faces(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, bool))
    result, _ = crop(image, none, (-10, -20, 60), 60)
    assert (result[20:40, 10:40] == 200).all()
    result[20:40, 10:40] = PAD
    assert (result == PAD).all()


def test_landmarks_outside_the_crop_become_unknown():
    points = np.float32([[[12, 12], [25, 12], [15, 15], [12, 18], [18, 18]]])
    faces = Faces(np.float32([[10, 10, 26, 20]]), points, np.array([False]))
    _, seen = crop(np.zeros((40, 40, 3), np.uint8), faces, (0, 0, 20), 20)
    np.testing.assert_array_equal(seen.boxes, [[10, 10, 20, 20]])
    np.testing.assert_array_equal(np.isnan(seen.landmarks[0, :, 0]), [False, True] + [False] * 3)


def test_a_face_larger_than_every_crop_is_still_seen():
    faces = Faces(
        np.float32([[0, 0, 100, 100]]), np.full((1, 5, 2), np.nan, np.float32), np.array([False])
    )
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y, side = sample_window((100, 100), faces, (0.3,), rng)
        assert x < 50 < x + side and y < 50 < y + side


def test_photometric_closed_forms():
    grey = np.full((4, 4, 3), 100, np.uint8)
    numbers = np.random.default_rng(0).random((200, NUMBERS))
    assert (sample_colors(Augmentation(photometric=0), numbers) == np.eye(3, 4)).all()
    levels = set()
    # neither saturation nor hue changes grey; 0.5·100−32 … 1.5·100+32
    for color in sample_colors(Augmentation(photometric=1), numbers):
        copy = grey.copy()
        recolor(copy, color)
        assert np.ptp(copy.astype(int)) <= 1
        levels.add(int(copy[0, 0, 0]))
    assert 18 <= min(levels) < 50 and 150 < max(levels) <= 182


@pytest.mark.parametrize("seed", range(5))
def test_hue_turns_as_in_hsv(seed):
    """A saturated colour's HSV hue moves the same way by about the same angle."""
    from detector.data.colors import _rotation

    rng = np.random.default_rng(seed)
    colour = rng.uniform(60, 180, 3)
    angle = rng.uniform(-36, 36)
    turned = _rotation(np.deg2rad(angle)) @ colour
    hue = [
        cv2.cvtColor(np.float32([[c / 255]]), cv2.COLOR_BGR2HSV)[0, 0, 0] for c in (colour, turned)
    ]
    # the axis runs B → G → R, against HSV's R → G → B
    assert abs((hue[0] - hue[1] - angle + 180) % 360 - 180) < 12
    assert turned.mean() == pytest.approx(colour.mean())
