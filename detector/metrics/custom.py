"""Metrics that plugins register, computed beside average precision when a model is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detector.base.plugins import checked_new, plugin_faults
from detector.data.types import ImageLabel, image_key

Metric = Callable[[Mapping[str, np.ndarray], Sequence[ImageLabel]], float]
"""From the predictions (image → float [n, 5]: x, y, w, h in px, score; best score first) and the
labels of all images to a number."""

METRICS: dict[str, Metric] = {}


def register_metric(name: str) -> Callable[[Metric], Metric]:
    """Decorator: a plugin's function as a metric of `nas.evaluate`.

    Raises:
        ConfigError: the name is taken.
    """
    checked_new("metric", name, METRICS)

    def register(metric: Metric) -> Metric:
        METRICS[name] = metric
        return metric

    return register


def custom_metrics(
    predictions: Mapping[str, np.ndarray], labels: Sequence[ImageLabel]
) -> dict[str, float]:
    """The value of each registered metric, by name.

    Args:
        predictions: as for `coco_ap`; a metric gets those of all labels, by their names.

    Raises:
        ConfigError: one fails, or returns no number.
    """
    if not METRICS:
        return {}
    by_key = {image_key(name): rows for name, rows in predictions.items()}
    none = np.zeros((0, 5))
    named = {label.name: by_key.get(image_key(label.name), none) for label in labels}
    values = {}
    for name, metric in METRICS.items():
        with plugin_faults(f"metric {name}"):
            values[name] = float(metric(named, labels))
    return values
