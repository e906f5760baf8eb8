r"""An objective of one's own: accuracy within a budget of computation, which may be exceeded, at a
price that grows with the excess.

    objective: {score: 2 * accuracy - over_budget(macs, 0.5e9)}

    python -m nas.search --space examples/plugins/budget.yaml \
        --plugin examples/plugins/own_objective.py
"""

import math

from trials.expression import register_function


@register_function("over_budget", arguments=2)
def over_budget(cost, budget):
    """0 within the budget, 0.5 for twice the budget, 1 for four times as much."""
    return 0.5 * math.log2(cost / budget) if cost > budget else 0.0
