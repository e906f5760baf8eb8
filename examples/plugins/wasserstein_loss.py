r"""A box loss of one's own: the normalised Wasserstein distance (Wang et al. 2021, "A Normalized
Gaussian Wasserstein Distance for Tiny Object Detection"), which also tells apart small boxes that
do not overlap.

    python -m nas.retrain --preset yunet_n --plugin examples/plugins/wasserstein_loss.py \
        --recipe examples/plugins/wasserstein.yaml
"""

import torch

from detector.losses.tables import register_box_loss

SIZE = 12.8
"""Side in px of typical boxes: the constant C of the paper."""


@register_box_loss("wasserstein")
def wasserstein_loss(boxes, targets):
    """[N, 4] and [N, 4] px (x1, y1, x2, y2) → [N] in [0, 1]: boxes as Gaussians."""
    centre = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    half_size = (boxes[:, 2:] - boxes[:, :2] - targets[:, 2:] + targets[:, :2]) / 2
    squared = centre.square().sum(1) + half_size.square().sum(1)
    return 1 - torch.exp(-(squared + 1e-6).sqrt() / SIZE)
