"""How long the trainings of each round are, and how many designs it has."""

from __future__ import annotations

from dataclasses import dataclass

LAST_DESIGNS = 3
"""Designs of the last round, besides the baseline; each earlier round has twice as many."""


@dataclass(frozen=True)
class Budget:
    epochs: int
    size: int
    """Side of the training crops in px."""

    def __str__(self) -> str:
        return f"{self.epochs} epochs at {self.size} px"

    @property
    def name(self) -> str:
        """For folders."""
        return f"{self.epochs}x{self.size}"


def budgets(proxy: Budget, full: Budget, rounds: int) -> list[Budget]:
    """The budget of each round, from the proxies to the full training: epochs and crop sizes grow
    by equal factors, sizes to multiples of 32."""

    def between(first: int, last: int, share: float) -> float:
        return first * (last / first) ** share

    return [
        proxy,
        *(
            Budget(
                epochs=round(between(proxy.epochs, full.epochs, number / (rounds - 1))),
                size=32 * round(between(proxy.size, full.size, number / (rounds - 1)) / 32),
            )
            for number in range(1, rounds - 1)
        ),
        full,
    ]


def designs(number: int, rounds: int) -> int:
    """Designs of a round besides the baseline.

    Args:
        number: of the round, from 2 (the first one after the proxies) to `rounds`.
    """
    return LAST_DESIGNS * 2 ** (rounds - number)
