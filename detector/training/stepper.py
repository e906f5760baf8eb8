"""The steps of a training: taken one by one, or on a GPU replayed from graphs.

A small network is a thousand short kernels a step, and starting each takes the CPU longer than
running it takes the GPU. A CUDA graph starts all of them at once. It is captured once for each
shape of a batch (`Targets.padded` keeps those few) and used where it is measured to be faster.
"""

from __future__ import annotations

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
from detector.data.targets import Targets
from detector.training import distributed
from detector.training.optim import set_lr
from detector.training.step import Precision, gradient_step

WARM_UP = 3
"""Steps before anything is measured: cuDNN chooses its algorithms, memory is allocated."""
TIMED = 5
"""Steps measured without graphs, and as many replayed, before one of the two is chosen."""
WORTH_IT = 40
"""Steps to go below which graphs are not captured."""
GAIN = 0.95
"""A replay must take less than this share of a step without graphs."""
LAG = 16
"""Steps that may be under way on a GPU before the oldest is waited for."""


@dataclass(frozen=True)
class StepResult:
    """Values of one step, as soon as they are known."""

    step: int
    """As the caller counts them."""
    losses: dict[str, float]
    """Each loss term and `total`."""
    scale: float | None
    """Of the loss after the step, where it is scaled (fp16)."""


class Stepper:
    """Takes steps; `results` and `flush` tell what became of them.

    Args:
        graph: whether to replay graphs; none: where it is measured to be faster.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Detector,
        recipe: Recipe,
        precision: Precision,
        graph: bool | None = None,
    ):
        self.device = next(model.parameters()).device
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        """Where all its work on a GPU is queued; a graph cannot be captured on the default one."""
        if self.stream is not None:  # the model, the optimiser and images may be on their way yet
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.milliseconds: dict[str, float] = {}
        """Of a step on the GPU, eager and graph, where both were measured."""
        self._model, self._optimizer, self._precision = model, optimizer, precision
        self._config, self._recipe = config, recipe
        able = self.device.type == "cuda" and distributed.place().workers == 1
        self._graph = graph if able else False
        self._graphs: dict[tuple, _Graph] = {}
        self._pool: Any = None
        self._taken = 0
        self._clocks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {
            "eager": [],
            "graph": [],
        }
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self._names: tuple[str, ...] = ()

    def step(self, number: int, parts: Sequence[Batch], lr: float, to_go: int) -> None:
        """Take a step (on a GPU: queue it).

        Args:
            number: of the step, for its result.
            parts: of the batch, on the device.
            to_go: steps that this training still takes, this one included.
        """
        set_lr(self._optimizer, lr)
        kind = self._kind(to_go)
        if self.stream is None:
            values = self._values(parts)
        else:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            values = self._replay(parts) if kind == "graph" else self._values(parts)
            ended.record()
            if self._taken >= WARM_UP and len(self._clocks[kind]) < TIMED:
                self._clocks[kind].append((began, ended))
        self._taken += 1
        self._pending.append((number, *_to_host(values)))

    def join(self) -> None:
        """Let what the caller queues on a GPU from now on wait for all steps so far."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def results(self) -> list[StepResult]:
        """The steps that have ended since the last call; waits for those LAG steps ago."""
        ended = []
        while self._pending:
            number, values, event = self._pending[0]
            if event is not None and len(self._pending) <= LAG and not event.query():
                break
            ended.append(self._result(number, values, event))
            self._pending.popleft()
        return ended

    def flush(self) -> list[StepResult]:
        """All steps that have not been told yet, once they have ended."""
        ended = [self._result(*pending) for pending in self._pending]
        self._pending.clear()
        return ended

    def _result(self, number: int, values: Tensor, event: torch.cuda.Event | None) -> StepResult:
        if event is not None:
            event.synchronize()
        named = dict(zip(self._names, values.tolist()))
        return StepResult(number, named, named.pop("scale", None))

    def _values(self, parts: Sequence[Batch]) -> Tensor:
        """Take the step; losses, and the scale where there is one, in the order of `_names`."""
        values = gradient_step(
            self._model, self._optimizer, parts, self._config, self._recipe, self._precision
        )
        if (scale := self._precision.scale) is not None:
            values = values | {"scale": scale}
        self._names = tuple(values)
        return torch.stack(list(values.values()))

    def _kind(self, to_go: int) -> str:
        """eager or graph: how the next step is to be taken."""
        if self._graph is False or self._taken < WARM_UP:
            return "eager"
        if self._graph is None and len(self._clocks["eager"]) < TIMED:
            return "eager"
        if not self._graphs and to_go < WORTH_IT:
            return "eager"
        if self._graph is None and len(self._clocks["graph"]) == TIMED:
            self._choose()
        return "eager" if self._graph is False else "graph"

    def _choose(self) -> None:
        for kind, clocks in self._clocks.items():
            clocks[-1][1].synchronize()
            self.milliseconds[kind] = statistics.median(a.elapsed_time(b) for a, b in clocks)
        self._graph = self.milliseconds["graph"] < GAIN * self.milliseconds["eager"]
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
                # Nothing has run: a graph only records. Not every design or driver allows one.
                print(
                    f"note: no CUDA graph of the step ({' '.join(str(error).split())[:200]}); "
                    "training goes on without"
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
                Targets(*(own.clone() for own in part.faces.tensors), part.faces.images),
            )
            for part in parts
        ]
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        self._optimizer.zero_grad(set_to_none=True)
        # thread_local: the threads that load images allocate pinned memory meanwhile
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            values = self._values(inputs)
        held = [priors(self._config, part.images.shape[2:], self.device) for part in parts]
        return _Graph(graph, inputs, values, held)


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Batch]
    values: Tensor
    held: Sequence[Priors]
    """What it reads besides: their cache drops them after detection in images of many sizes."""

    def replay(self, parts: Sequence[Batch]) -> Tensor:
        for own, part in zip(self.inputs, parts):
            torch._foreach_copy_(
                [own.images, *own.faces.tensors], [part.images, *part.faces.tensors]
            )
        self.graph.replay()
        return self.values


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values in memory of the CPU, once the event (none: now) has passed."""
    if not values.is_cuda:
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    return host, torch.cuda.current_stream().record_event()
