"""A trial whose values are drawn at random."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from nas.search_space.dimensions import Value, grid_value


class RandomTrial:
    """A `nas.search_space.dimensions.Trial` that draws values uniformly on their scale."""

    def __init__(self, seed: str | int):
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return self._random.choice(list(choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        if not log:
            return self._random.randrange(low, high + 1, step)
        value = math.exp(self._random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(max(round(value), low), high)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            value = math.exp(self._random.uniform(math.log(low), math.log(high)))
            return min(max(value, low), high)
        if step is not None:
            return grid_value(low, high, step, self._random.randint(0, round((high - low) / step)))
        return self._random.uniform(low, high)
