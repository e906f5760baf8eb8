"""The optimiser steps of a training: eager, or on a GPU replayed from CUDA graphs.

A step of a small network is a thousand short kernels, each of which the CPU launches more slowly
than the GPU runs it. A CUDA graph launches all of them at once. It is captured once for each shape
of a batch (`Targets.padded` keeps these few) and used if it is measured to be faster.
"""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detector.base.errors import out_of_memory
from detector.boxes.anchors import Priors, priors
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.loader import Batch
from detector.training import distributed
from detector.training.optim import set_lr
from detector.training.step import Precision, gradient_step
from detector.training.teacher import TeacherNetwork

logger = logging.getLogger(__name__)

WARMUP_STEPS = 3
"""Untimed first steps: cuDNN chooses its algorithms, memory is allocated."""
TIMED_STEPS = 5
"""Steps timed eager, and as many replayed, before the faster way is chosen."""
MIN_STEPS_FOR_GRAPHS = 40
"""With fewer steps remaining, no graph is captured."""
MAX_REPLAY_TIME = 0.95
"""Graphs are used if a replay takes less than this share of an eager step's time."""
MAX_IN_FLIGHT = 16
"""Steps queued on a GPU before the oldest one is waited for."""


@dataclass(frozen=True)
class StepResult:
    """The result of one step."""

    step: int
    """The number that the caller gave it."""
    losses: dict[str, float]
    """Each loss term and `total`."""
    scale: float | None
    """Of the loss after the step; None without loss scaling."""


class Stepper:
    """Takes steps; `results` and `flush` return their results.

    Args:
        graph: whether to replay CUDA graphs; None: if that is measured to be faster.
        teacher: as for `gradient_step`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Detector,
        recipe: Recipe,
        precision: Precision,
        graph: bool | None = None,
        teacher: TeacherNetwork | None = None,
    ):
        self.device = next(model.parameters()).device
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        """The CUDA stream of all steps; a graph cannot be captured on the default stream."""
        if self.stream is not None:  # copies of model, optimiser and images may be pending
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.milliseconds: dict[str, float] = {}
        """Median time of a step on the GPU by mode, eager and graph, if both were measured."""
        self._model, self._optimizer, self._precision = model, optimizer, precision
        self._config, self._recipe, self._teacher = config, recipe, teacher
        supported = self.device.type == "cuda" and distributed.this_worker().world_size == 1
        self._graph = graph if supported else False
        self._graphs: dict[tuple, _Graph] = {}
        self._pool: Any = None
        self._steps = 0
        self._timings: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {
            "eager": [],
            "graph": [],
        }
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self._names: tuple[str, ...] = ()

    def step(self, number: int, parts: Sequence[Batch], lr: float, remaining: int) -> None:
        """Takes a step (on a GPU: queues it).

        Args:
            number: of the step, returned with its result.
            parts: of the batch, on the device.
            remaining: steps until the end of this training, this one included.
        """
        set_lr(self._optimizer, lr)
        mode = self._mode(remaining)
        if self.stream is None:
            values = self._values(parts)
        else:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            values = self._replay(parts) if mode == "graph" else self._values(parts)
            end.record()
            if self._steps >= WARMUP_STEPS and len(self._timings[mode]) < TIMED_STEPS:
                self._timings[mode].append((start, end))
        self._steps += 1
        self._pending.append((number, *_to_host(values)))

    def join(self) -> None:
        """Makes what the caller queues on the GPU from now on wait for all steps so far."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def results(self) -> list[StepResult]:
        """The steps that finished since the last call; waits for those MAX_IN_FLIGHT steps ago."""
        finished = []
        while self._pending:
            number, values, event = self._pending[0]
            if event is not None and len(self._pending) <= MAX_IN_FLIGHT and not event.query():
                break
            finished.append(self._result(number, values, event))
            self._pending.popleft()
        return finished

    def flush(self) -> list[StepResult]:
        """Waits for all steps; returns the results that `results` has not returned yet."""
        finished = [self._result(*pending) for pending in self._pending]
        self._pending.clear()
        return finished

    def _result(self, number: int, values: Tensor, event: torch.cuda.Event | None) -> StepResult:
        if event is not None:
            event.synchronize()
        named = dict(zip(self._names, values.tolist()))
        return StepResult(number, named, named.pop("scale", None))

    def _values(self, parts: Sequence[Batch]) -> Tensor:
        """Takes the step; returns the losses, and the scale if any, in the order of `_names`."""
        values = gradient_step(
            self._model,
            self._optimizer,
            parts,
            self._config,
            self._recipe,
            self._precision,
            self._teacher,
        )
        if (scale := self._precision.scale) is not None:
            values = values | {"scale": scale}
        self._names = tuple(values)
        return torch.stack(list(values.values()))

    def _mode(self, remaining: int) -> str:
        """eager or graph: the way to take the next step."""
        if self._graph is False or self._steps < WARMUP_STEPS:
            return "eager"
        if self._graph is None and len(self._timings["eager"]) < TIMED_STEPS:
            return "eager"
        if not self._graphs and remaining < MIN_STEPS_FOR_GRAPHS:
            return "eager"
        if self._graph is None and len(self._timings["graph"]) == TIMED_STEPS:
            self._choose()
        return "eager" if self._graph is False else "graph"

    def _choose(self) -> None:
        for mode, timings in self._timings.items():
            timings[-1][1].synchronize()
            self.milliseconds[mode] = statistics.median(a.elapsed_time(b) for a, b in timings)
        self._graph = self.milliseconds["graph"] < MAX_REPLAY_TIME * self.milliseconds["eager"]
        if not self._graph:
            self._drop_graphs()

    def _replay(self, parts: Sequence[Batch]) -> Tensor:
        key = tuple((tuple(part.images.shape), len(part.faces.boxes)) for part in parts)
        if key not in self._graphs:
            try:
                self._graphs[key] = self._capture(parts)
            except Exception as error:
                if out_of_memory(error):
                    raise
                # Capturing runs nothing. Not every design or driver supports it.
                logger.warning(
                    "note: no CUDA graph of the step (%s); training continues without",
                    " ".join(str(error).split())[:200],
                )
                self._drop_graphs()
                return self._values(parts)
        return self._graphs[key].replay(parts)

    def _drop_graphs(self) -> None:
        self._graph = False
        self._graphs.clear()
        self._pool = None

    def _capture(self, parts: Sequence[Batch]) -> _Graph:
        inputs = [
            Batch(
                part.images.clone(),
                part.faces.map(torch.clone),
            )
            for part in parts
        ]
        # Before the capture, in which they could not be computed: an evaluation of images of many
        # sizes drops those of the crops from the cache.
        anchors = [priors(self._config, part.image_size, self.device) for part in parts]
        if self._teacher is not None:
            anchors += [self._teacher.priors(part.image_size) for part in parts]
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        self._optimizer.zero_grad(set_to_none=True)
        # thread_local: threads that load images allocate pinned memory at the same time
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            values = self._values(inputs)
        return _Graph(graph, inputs, values, anchors)


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Batch]
    values: Tensor
    anchors: Sequence[Priors]
    """Tensors that the graph reads, kept alive: the cache of `priors` may drop them."""

    def replay(self, parts: Sequence[Batch]) -> Tensor:
        for own, part in zip(self.inputs, parts):
            torch._foreach_copy_(
                [own.images, *own.faces.tensors], [part.images, *part.faces.tensors]
            )
        self.graph.replay()
        return self.values


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values in the CPU's memory, valid after the event (None: at once)."""
    if not values.is_cuda:
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    return host, torch.cuda.current_stream().record_event()
