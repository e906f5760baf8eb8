"""Flags for test size and test-time augmentation. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import argparse
from dataclasses import replace

from detector.config.recipe import Evaluation

SIZES = {"original": (None, None), "vga": (None, 640)}  # name → short and long side in px


def test_size(text: str) -> tuple[int | None, int | None]:
    """(short side, long side) in px, None where unlimited, from original, vga, a long side or
    SHORTxLONG; an argparse type."""
    if text in SIZES:
        return SIZES[text]
    sides = [int(word) if word.isdecimal() else 0 for word in text.split("x")]
    if len(sides) > 2 or not all(sides) or sides != sorted(sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be original, vga, the long side in px such as 800, or the short "
            "side and the maximum of the long one, such as 1600x2150"
        )
    return (None, sides[0]) if len(sides) == 1 else (sides[0], sides[1])


def factors(text: str) -> tuple[float, ...]:
    """Comma-separated numbers above 0, without repetitions; an argparse type."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < factor <= 10 for factor in numbers):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be numbers above 0 and at most 10, such as 0.5,1,1.5"
        )
    return tuple(dict.fromkeys(numbers))


def add_size_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--test-size",
        metavar="SIZE",
        type=test_size,
        default=None,
        help="original; vga: the long side scaled down to 640 px; a number: scaled down "
        "to that many px; 1600x2150: the short side scaled up or down to 1600 px, the long "
        "one to at most 2150, as RetinaFace was tested (default: that of --preset, otherwise "
        "original)",
    )


def add_tta_flags(group: argparse._ActionsContainer, default: str = "1") -> None:
    """Add --flip and --scales.

    Args:
        default: of --scales, for the help.
    """
    group.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="detect in the mirrored image, too, and merge by box voting (default: as "
        "--preset does, otherwise not)",
    )
    group.add_argument(
        "--scales",
        metavar="FACTORS",
        type=factors,
        default=None,
        help="multiples of the test size at which to detect, such as 0.5,1,1.5; merged "
        f"by box voting (default: {default})",
    )


def tta_settings(args: argparse.Namespace, settings: Evaluation) -> Evaluation:
    """`settings` with the values of the flags of `add_tta_flags` and, if added, `add_size_flag`."""
    if (size := getattr(args, "test_size", None)) is not None:
        settings = replace(settings, short=size[0], size=size[1])
    given = {"flip": args.flip, "scales": args.scales}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def num_passes(settings: Evaluation) -> int:
    """Forward passes of each image."""
    return len(settings.scales) * (1 + settings.flip)


def format_test_size(settings: Evaluation) -> str:
    """The test size as --test-size takes it; vga becomes 640."""
    if settings.size is None:
        return "original"
    return f"{settings.short}x{settings.size}" if settings.short else str(settings.size)


def describe(settings: Evaluation) -> str:
    """Such as "original image size" or "long side at most 640 px, mirrored too, × 0.5 and 1"."""
    parts = ["original image size"]
    if settings.short is not None:
        parts = [f"short side {settings.short} px, long side at most {settings.size} px"]
    elif settings.size is not None:
        parts = [f"long side at most {settings.size} px"]
    if settings.size is not None and settings.canvas is not None:
        square = f"{settings.size}×{settings.size} px"
        parts.append(f"padded to {square if settings.canvas == 'square' else 'multiples of 64 px'}")
    if settings.scales != (1.0,):
        parts.append(f"at × {', '.join(f'{factor:g}' for factor in settings.scales)}")
    if settings.flip:
        parts.append("mirrored too")
    return ", ".join(parts)
