"""What is evaluated: a model of this program, or a graph of another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.files import sha256_of
from detector.config.detector import Detector, arch_hash
from nas.models.competition_rules import Rule, check_foreign, check_rules
from nas.models.foreign_graphs import foreign_graph
from nas.models.model_folder import Model, ModelChoice, chosen_model
from trials.names import describe
from trials.record import Cost
from trials.stored import Origin

if TYPE_CHECKING:
    from torch import nn

    from detector.foreign.graph import ForeignGraph

SIZE = (640, 640)
"""(height, width) px of the image that MACs and latencies are for."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated, with all that an evaluation says about it besides AP and latency."""

    title: str
    description: str
    """The design in a line, or the kind of graph."""
    path: Path
    net: nn.Module
    design: str
    """Identifies the design."""
    cost: Cost
    """Without latency."""
    model: Model | None = None
    """None for a graph of another program."""
    input_size: tuple[int, int] = SIZE
    """(height, width) px of the image whose latency is measured."""
    notes: tuple[str, ...] = ()
    """About the cost, for the user."""

    @property
    def config(self) -> Detector | None:
        return self.model.config if self.model else None

    @property
    def origin(self) -> Origin | None:
        return self.model.origin if self.model else None

    def rules(self, cost: Cost) -> list[Rule]:
        """The competition's rules."""
        from detector.network.counters import thop_cost

        if self.model is None:
            return check_foreign(cost)
        return check_rules(cost, thop_cost(self.model.config), self.model.recipe, self.model.origin)


def load_subject(choice: ModelChoice) -> Subject:
    """The model that a choice names.

    Raises:
        UserError: there is none, it cannot be read, or it is of no known kind.
    """
    from detector.export.runtime import NotExported

    try:
        return of_model(chosen_model(choice))
    except NotExported:
        graph = foreign_graph(choice.model)
        if graph is None:
            raise
        return _of_graph(graph)


def of_model(model: Model) -> Subject:
    return Subject(
        title=model.title,
        description=describe(model.config),
        path=model.path,
        net=model.net,
        design=arch_hash(model.config),
        cost=Cost.of(model.config),
        model=model,
    )


def _of_graph(graph: ForeignGraph) -> Subject:
    from detector.foreign.counts import graph_cost

    size = graph.input_size(SIZE)
    counted = graph_cost(graph.path, size)
    notes = []
    if size != SIZE:
        notes.append(
            f"its input is {size[1]}×{size[0]}, of {counted.macs / 1e9:.4f} G MACs: the cost at "
            "640×640 is that in proportion to the area"
        )
    if counted.folded:
        notes.append(
            "parameters and MACs are those of the graph; batch norms that are folded into its "
            "convolutions are not among them, which thop counts in a network to be trained"
        )
    return Subject(
        title=graph.path.name,
        description=f"a graph of another program: {graph.kind.name}",
        path=graph.path,
        net=graph,
        design=f"{graph.kind.name} {sha256_of(graph.path)[:12]}",
        cost=Cost(params=counted.params, macs=counted.macs_at(SIZE)),
        input_size=size,
        notes=tuple(notes),
    )
