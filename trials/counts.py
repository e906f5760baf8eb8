"""thop's count of a built network, held against what its design says."""

from __future__ import annotations

from detector.base.errors import UserError
from detector.base.plugins import plugin_faults
from detector.config.detector import Detector
from trials.record import Cost


def built_counts(detector: Detector) -> tuple[int, int]:
    """Parameters and MACs of the built network at 640×640, MACs by thop.

    Raises:
        UserError: it costs more than its score says: a layer of a plugin, which has counts of its
            own, has forgotten something (it may count what thop does not see); or such a layer
            fails.
    """
    from detector.network.counters import thop_cost

    with plugin_faults("a layer of the network", among_ours=True):
        params, macs = thop_cost(detector, (640, 640))
    counted = Cost.of(detector)
    if params != counted.params or macs > counted.macs:
        raise UserError(
            f"the built network has {params:,} parameters and {macs:,} MACs by thop, where its "
            f"layers count {counted.params:,} and {counted.macs:,}; mend params and macs, or "
            "leaves, of the plugin's layers"
        )
    return params, macs
