"""How much more accurate a full training makes a design than the short one of its trial.

Short trainings wrong large designs: they learn more slowly and end higher. A search that ranks by
what short trainings reach finds the designs that learn fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.base.struct import Struct

REFERENCE_MACS = 0.1e9


@dataclass(frozen=True, kw_only=True)
class Growth(Struct):
    """What the log-odds of accuracy gain from a trial's budget to a full training."""

    base: float
    """At 0.1 G MACs (at 640×640)."""
    per_decade: float
    """More for each factor of ten in MACs."""

    def __post_init__(self):
        for key in ("base", "per_decade"):
            if not abs(getattr(self, key)) <= 10:  # NaN, too
                raise ConfigError(f"growth.{key}: {getattr(self, key)} must be within -10 and 10")

    def of(self, macs):
        """The gain of designs with these MACs: float, or float [N]."""
        import numpy as np

        return self.base + self.per_decade * np.log10(np.asarray(macs, float) / REFERENCE_MACS)

    def expected(self, accuracy, macs):
        """Accuracy after a full training, in [0, 1].

        Args:
            accuracy: after the trial, in [0, 1]: a float, or float [..., N]. Predictions of a
                model are limited to that range.
            macs: a float, or float [N].
        """
        import numpy as np

        odds, share = np.exp(self.of(macs)), np.clip(accuracy, 0.0, 1.0)
        return share * odds / (share * odds + 1 - share)
