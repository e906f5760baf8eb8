"""A search space by its file, or a shipped one by its name."""

from __future__ import annotations

from pathlib import Path

from detector.base.cli import quantity
from detector.config.shipped import find_file
from nas.search_space.space import SearchSpace


def load_space(space: str | Path, budget: str | None = None) -> SearchSpace:
    """Read and check a search space.

    Args:
        budget: MACs, such as "0.5G", that replace the space's own.

    Raises:
        UserError: there is no such file, it breaks a rule, or the budget is not a number.
    """
    macs = quantity(budget, "--budget") if budget else None
    return SearchSpace.load(find_file(space, "space"), macs)
