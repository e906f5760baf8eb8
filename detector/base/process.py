"""What every process of this project sets when it starts."""

import gc

YOUNG = 50_000
"""Objects made before the garbage collector looks at them; Python's default is 700."""


def collect_seldom() -> None:
    """Let the garbage collector look less often.

    Imports make a million objects that stay, and torch, Ray and MLflow import a lot: looking at
    them again and again was a sixth of their time. What has no cycles is freed at once anyway.
    """
    gc.set_threshold(YOUNG)
