"""Latency of designs for a search: each is timed in turns with the baseline, on one worker."""

from __future__ import annotations

from collections.abc import Sequence

from detector.base.plugins import load_plugins
from detector.config.detector import Detector
from trials.run import pin_threads, release_memory

THREADS = 1
SECONDS = 3.0
"""Time for the repeats of one design; their number is in [MIN_REPEATS, MAX_REPEATS]."""
MIN_REPEATS, MAX_REPEATS = 5, 30


class Bench:
    """Times designs on one thread (or a GPU), one 640×640 image at a time.

    Other load on the machine slows a design and the baseline alike, so a latency is their ratio
    times the baseline's latency, measured once: values stay comparable over a search of hours.

    Args:
        baseline: the design that others are timed with.
        device: cpu or cuda.
        plugins: absolute paths of plugins that the designs need.
    """

    def __init__(self, baseline: Detector, device: str, plugins: Sequence[str] = ()):
        load_plugins(plugins)
        self._device = device
        pin_threads(THREADS)
        self._baseline = self._built(baseline)

    def machine(self) -> str:
        """This machine, as `Cost.machine` names it."""
        from detector.inference.latency import machine_name

        return machine_name(THREADS, self._device)

    def baseline_ms(self) -> float:
        """Median time of the baseline."""
        from detector.inference.latency import latency

        return latency(
            self._baseline, threads=THREADS, repeats=MAX_REPEATS, device=self._device
        ).median_ms

    def ratio(self, detector: Detector) -> float:
        """Median time of a design, in multiples of the baseline's."""
        from detector.inference.latency import latencies

        models = {"design": self._built(detector), "baseline": self._baseline}
        single = latencies(models, threads=THREADS, repeats=1, device=self._device, warmup=1)
        seconds = sum(timing.median_ms for timing in single.values()) / 1000
        repeats = min(max(int(SECONDS / seconds), MIN_REPEATS), MAX_REPEATS)
        timings = latencies(models, threads=THREADS, repeats=repeats, device=self._device, warmup=1)
        del models
        release_memory()
        return timings["design"].median_ms / timings["baseline"].median_ms

    def _built(self, detector: Detector):
        from detector.network.model import build_detector

        return build_detector(detector).to(self._device).eval()
