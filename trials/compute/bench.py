"""Latency of designs for a search: each timed in turns with the baseline, on one worker."""

from __future__ import annotations

from detector.config.detector import Detector
from trials.run import pin_threads, release_memory

THREADS = 1
SECONDS = 3.0
"""Time for the passes of one design; at least LEAST and at most MOST of them are timed."""
LEAST, MOST = 5, 30


class Bench:
    """Times designs on one thread (or a GPU), one 640×640 image at a time.

    What else the machine does slows a design and the baseline alike, so latencies are told by
    their ratio, times what the baseline took once: they stay comparable over a search of hours.

    Args:
        baseline: configuration of the design that others are timed with, as plain data.
        device: cpu or cuda.
    """

    def __init__(self, baseline: dict, device: str):
        self._device = device
        pin_threads(THREADS)
        self._baseline = self._built(baseline)

    def machine(self) -> str:
        """Where this runs, as `Cost.machine` names it."""
        from detector.inference.latency import machine_name

        return machine_name(THREADS, self._device)

    def baseline_ms(self) -> float:
        """Median time of the baseline itself."""
        from detector.inference.latency import latency

        return latency(self._baseline, threads=THREADS, repeats=MOST, device=self._device).median_ms

    def ratio(self, detector: dict) -> float:
        """Median time of a design, in multiples of the baseline's."""
        from detector.inference.latency import latencies

        models = {"design": self._built(detector), "baseline": self._baseline}
        once = latencies(models, threads=THREADS, repeats=1, device=self._device, warmup=1)
        seconds = sum(taken.median_ms for taken in once.values()) / 1000
        repeats = min(max(int(SECONDS / seconds), LEAST), MOST)
        taken = latencies(models, threads=THREADS, repeats=repeats, device=self._device, warmup=1)
        del models
        release_memory()
        return taken["design"].median_ms / taken["baseline"].median_ms

    def _built(self, detector: dict):
        from detector.network.model import build_detector

        return build_detector(Detector.from_dict(detector)).to(self._device).eval()
