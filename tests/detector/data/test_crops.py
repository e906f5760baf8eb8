"""Crop rules against the original's, box by box; padding, clipping, interpolation."""

import cv2
import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp

from detector.config.recipe import Augmentation
from detector.data.crops import crop_faces, crop_image, sample_interpolations, sample_windows
from detector.data.faces import Faces
from detector.data.random_numbers import NUMBERS, random_numbers

SCALES = (0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # SCRFD's
IMAGES = 3000


def faces_of(boxes, image=None):
    boxes = np.float32(boxes).reshape(-1, 4)
    unknown = np.full((len(boxes), 5, 2), np.nan, np.float32)
    return Faces(boxes, unknown, np.zeros(len(boxes), bool), image)


def scenes(seed, images):
    """Sizes and faces as those of WIDER: from one large face to a crowd, some at the border."""
    rng = np.random.default_rng(seed)
    sizes = np.stack([np.full(images, 256), rng.integers(120, 400, images)], axis=1)
    counts = rng.choice([1, 1, 2, 5, 20], images)
    owner = np.arange(images).repeat(counts)
    centres = rng.beta(0.7, 0.7, (len(owner), 2)) * sizes[owner]
    half = np.exp(rng.normal(2.5, 0.8, (len(owner), 1))) / 2
    return sizes, faces_of(np.concatenate([centres - half, centres + half], axis=1), owner)


def own_windows(sizes, faces, seed, **settings):
    numbers = np.random.default_rng(seed).random((len(sizes), NUMBERS))
    return sample_windows(sizes, faces, Augmentation(**settings), numbers)


def slow_windows(sizes, faces, scales, seed):
    """RandomSquareCrop of SCRFD and YuNet (deepinsight/insightface and libfacedetection.train,
    mmdet/datasets/pipelines/transforms.py): image by image, square by square."""
    rng = np.random.default_rng(seed)

    def corner(length, side):
        low, high = min(0, length - side), max(0, length - side)
        return int(rng.integers(low, high + 1))

    def window(size, centres):
        scale = rng.choice(scales)
        while True:
            side = round(scale * min(size))
            for _ in range(250):
                x, y = corner(size[0], side), corner(size[1], side)
                for cx, cy in centres:
                    if x < cx < x + side and y < cy < y + side:
                        return x, y, side
            scale = rng.choice(scales) if max(scales) > 1 else 1.2 * scale

    centres = faces.centres
    return np.array(
        [window(size.tolist(), centres[faces.image == i]) for i, size in enumerate(sizes)]
    )


def statistics(sizes, faces, windows):
    """Numbers of a crop whose distributions are compared."""
    x, y, side = windows.T
    seen = crop_faces(faces, windows, 640)
    length = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1)
    return {
        "share": side / sizes.min(axis=1),
        "x": (x + side / 2) / sizes[:, 0],
        "y": (y + side / 2) / sizes[:, 1],
        "faces": np.bincount(seen.image, minlength=len(sizes)),
        "length": length,
    }


@pytest.mark.parametrize("scales", [SCALES, (0.3, 0.5)])
def test_face_centre_is_random_square_crop(scales):
    sizes, faces = scenes(0, IMAGES if scales is SCALES else 800)
    own = own_windows(sizes, faces, 1, scales=scales, crop="face_centre")
    slow = slow_windows(sizes, faces, scales, 2)
    pairs = zip(
        statistics(sizes, faces, own).items(), statistics(sizes, faces, slow).values(), strict=True
    )
    for (name, values), others in pairs:
        assert ks_2samp(values, others).pvalue > 0.01, name


def test_face_centre_takes_all_scales_equally_and_whole_face_does_not():
    sizes, faces = scenes(3, IMAGES)
    centre = ((faces.centres > 60) & (faces.centres < 110)).all(axis=1)  # far from the border
    inner, sizes = faces[centre], sizes.clip(256)

    def counts(rule):
        windows = own_windows(sizes, inner, 4, scales=SCALES, crop=rule)
        shares = windows[:, 2] / sizes.min(axis=1)
        has_faces = np.unique(inner.image)
        nearest = np.abs(shares[has_faces, None] - SCALES).argmin(axis=1)
        return np.bincount(nearest, minlength=len(SCALES))

    assert chisquare(counts("face_centre")).pvalue > 0.01
    assert chisquare(counts("whole_face")).pvalue < 1e-6


def test_whole_face_differs_from_random_square_crop():
    """So the comparison above can tell them apart."""
    sizes, faces = scenes(0, IMAGES)
    own = statistics(sizes, faces, own_windows(sizes, faces, 1, scales=SCALES))
    slow = statistics(sizes, faces, slow_windows(sizes, faces, SCALES, 2))
    assert ks_2samp(own["share"], slow["share"]).pvalue < 1e-6


def test_a_face_in_the_corner_is_found_by_squares_that_few_try():
    """Its centre is in 9 of 129,600 squares of scale 0.1."""
    sizes = np.tile([400, 400], (200, 1))
    faces = faces_of([[0, 0, 6, 6]] * 200, np.arange(200))
    windows = own_windows(sizes, faces, 0, scales=(0.1, 1.5), crop="face_centre")
    assert (windows[:, :2] < 3).all()
    assert 0 < (windows[:, 2] == 40).sum() < 100  # mostly the other scale, as in the original
    assert (windows == own_windows(sizes, faces, 0, scales=(0.1, 1.5), crop="face_centre")).all()


def test_an_image_without_faces_takes_the_first_square_of_either_rule():
    sizes = np.tile([300, 200], (500, 1))
    for rule in ("whole_face", "face_centre"):
        windows = own_windows(sizes, faces_of([], np.empty(0, int)), 0, scales=(0.5,), crop=rule)
        assert (windows[:, 2] == 100).all()
        assert windows[:, 0].min() == 0 and windows[:, 0].max() == 200


def test_new_random_numbers_leave_the_others_where_they_were():
    def rng(*seed):
        return np.random.default_rng(seed)

    numbers = random_numbers(7, rng(3, 1), rng(3, 2))
    assert numbers.shape == (7, NUMBERS)
    assert (numbers[:, :162] == rng(3, 1).random((7, 162))).all()
    assert (numbers[:, 162:] == rng(3, 2).random((7, NUMBERS - 162))).all()


def test_boxes_are_clipped_or_not():
    faces = faces_of([[-10, 5, 30, 60], [20, 20, 24, 24], [70, 70, 90, 90]], np.zeros(3, int))
    window = np.array([[0, 10, 50]])
    clipped = crop_faces(faces, window, 100)
    whole = crop_faces(faces, window, 100, clip_boxes=False)
    np.testing.assert_array_equal(clipped.boxes, [[0, 0, 60, 100], [40, 20, 48, 28]])
    np.testing.assert_array_equal(whole.boxes, [[-20, -10, 60, 100], [40, 20, 48, 28]])


def test_beyond_the_image_is_the_padding():
    image, out = np.full((20, 30, 3), 200, np.uint8), np.empty((60, 60, 3), np.uint8)
    crop_image(image, (-10, -20, 60), out, (1, 2, 3))
    assert (out[20:40, 10:40] == 200).all()
    out[20:40, 10:40] = (1, 2, 3)
    assert (out == (1, 2, 3)).all()


def test_random_interpolation_is_one_of_five():
    numbers = np.random.default_rng(0).random((5000, NUMBERS))
    assert sample_interpolations(Augmentation(), numbers) is None
    kinds = sample_interpolations(Augmentation(interpolation="random"), numbers)
    own, counts = np.unique(kinds, return_counts=True)
    assert set(own) == {
        cv2.INTER_NEAREST,
        cv2.INTER_LINEAR,
        cv2.INTER_CUBIC,
        cv2.INTER_AREA,
        cv2.INTER_LANCZOS4,
    }
    assert chisquare(counts).pvalue > 0.01
    image = np.random.default_rng(1).integers(0, 256, (50, 50, 3), np.uint8)
    for kind in own.tolist():
        out = np.empty((20, 20, 3), np.uint8)
        crop_image(image, (5, 3, 40), out, (0, 0, 0), kind)
        expected = cv2.resize(image[3:43, 5:45], (20, 20), interpolation=kind)
        np.testing.assert_array_equal(out, expected)
