"""The flags that say at which sizes and how often a model looks at an image. Light to import."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from dataclasses import replace

from detector.config.recipe import Evaluation

SIZES = {"original": (None, None), "vga": (None, 640)}  # name → short and long side in px


def test_size(text: str) -> tuple[int | None, int | None]:
    """(short side, long side) px, none where free, from original, vga, a long side or SHORTxLONG;
    an argparse type."""
    if text in SIZES:
        return SIZES[text]
    sides = [int(word) if word.isdecimal() else 0 for word in text.split("x")]
    if len(sides) > 2 or not all(sides) or sides != sorted(sides):
        raise ArgumentTypeError(
            f"{text!r} must be original, vga, the long side in px such as "
            "800, or the short side and the most that the long one gets, such "
            "as 1600x2150"
        )
    return (None, *sides) if len(sides) == 1 else tuple(sides)


def factors(text: str) -> tuple[float, ...]:
    """Numbers above 0 with commas between them, an argparse type."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < factor <= 10 for factor in found):
        raise ArgumentTypeError(
            f"{text!r} must be numbers above 0 and at most 10, such as 0.5,1,1.5"
        )
    return tuple(dict.fromkeys(found))


def add_size_flag(made) -> None:
    made.add_argument(
        "--test-size",
        metavar="SIZE",
        type=test_size,
        default=SIZES["original"],
        help="original; vga: the long side scaled down to 640 px; a number: to that "
        "many; 1600x2150: the short side scaled, up too, to 1600 px, the long "
        "one to 2150 at most, as RetinaFace was tested (default: original)",
    )


def add_look_flags(made) -> None:
    made.add_argument(
        "--flip", action="store_true", help="look at the mirror image, too, and merge by box voting"
    )
    made.add_argument(
        "--scales",
        metavar="FACTORS",
        type=factors,
        default=(1.0,),
        help="factors of the size to look at an image at, such as 0.5,1,1.5; merged "
        "by box voting (default: 1)",
    )


def look_settings(args: Namespace, settings: Evaluation) -> Evaluation:
    """`settings` with what the flags of `add_look_flags` and, where there, `add_size_flag` say."""
    short, long = getattr(args, "test_size", (settings.short, settings.size))
    return replace(settings, short=short, size=long, flip=args.flip, scales=args.scales)


def looks(settings: Evaluation) -> int:
    """How often an image is looked at."""
    return len(settings.scales) * (1 + settings.flip)


def told_size(settings: Evaluation) -> str:
    """The test size as --test-size takes it, vga as 640."""
    if settings.size is None:
        return "original"
    return f"{settings.short}x{settings.size}" if settings.short else str(settings.size)


def described(settings: Evaluation) -> str:
    """Such as "original image size" or "long side at most 640 px, mirrored too, × 0.5 and 1"."""
    parts = ["original image size"]
    if settings.short is not None:
        parts = [f"short side {settings.short} px, long side at most {settings.size} px"]
    elif settings.size is not None:
        parts = [f"long side at most {settings.size} px"]
    if settings.scales != (1.0,):
        parts.append(f"at × {', '.join(f'{factor:g}' for factor in settings.scales)}")
    if settings.flip:
        parts.append("mirrored too")
    return ", ".join(parts)
