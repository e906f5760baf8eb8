"""Latency of a model, in alternation with that of another one where one is asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.base.errors import UserError
from detector.base.json_file import read_json
from detector.config.presets import load_design
from detector.config.shipped import find_file
from nas.evaluation.subject import SIZE, Subject, load_subject, of_model
from nas.models.model_folder import WEIGHTS, Model, ModelChoice, last_retrained

if TYPE_CHECKING:
    import torch

    from detector.inference.latency import Latency

BASELINE = "retinaface_mobile025"
EVALUATION = "evaluation.json"


def beside_of(subject: Subject, beside: str | None, runs_dir: Path) -> Subject | None:
    """The model to time beside another one.

    Args:
        beside: a weights file, an exported or foreign model, or a preset; None means, for a foreign
            graph, the most recently retrained model, or the baseline if there is none.

    Raises:
        UserError: there is no such model.
    """
    if beside is None:
        if subject.model is not None:
            return None
        try:
            newest = last_retrained(runs_dir)
        except UserError:  # there is none yet
            return _of_preset(BASELINE)
        return load_subject(ModelChoice(checkpoint=newest / WEIGHTS))
    path = Path(beside)
    if path.suffix in (".onnx", ".xml"):
        return load_subject(ModelChoice(model=path))
    if path.suffix in (".yaml", ".yml", ""):
        return _of_preset(beside)
    return load_subject(ModelChoice(checkpoint=path))


def _of_preset(name: str) -> Subject:
    """A published design with random weights, which are as fast as trained ones."""
    from detector.network.model import build_detector

    path = find_file(name, "preset")
    config, _ = load_design(path)
    net = build_detector(config).eval()
    model = Model(config=config, net=net, recipe=None, origin=None, path=path)
    return replace(of_model(model), title=path.stem)


def measure(
    subject: Subject, beside: Subject | None, device: torch.device
) -> tuple[Latency, Latency | None]:
    """Latency of one image of 640×640, on a CPU with one thread; of both models in alternation.

    If one of them is a graph, the other one is exported, and both run on the CPU in the same
    manner. A foreign graph is timed on its prepared input, ours with its own normalisation.
    """
    from detector.inference.latency import latencies

    subjects = [subject] if beside is None else [subject, beside]
    as_graphs = any(_is_graph(one) for one in subjects)
    with tempfile.TemporaryDirectory() as folder:
        runners: dict[int, Callable] = {}
        runtimes: dict[int, str] = {}
        for index, one in enumerate(subjects):
            if as_graphs:
                file = Path(folder) / f"{index}.onnx"
                runners[index], runtimes[index] = _runner(one, file)
            else:
                runners[index] = one.net
        measured = latencies(runners, SIZE, device="cpu" if as_graphs else device)
    found = [
        replace(time, machine=f"{time.machine}, {runtimes[index]}") if as_graphs else time
        for index, time in measured.items()
    ]
    return found[0], found[1] if beside is not None else None


def _is_graph(subject: Subject) -> bool:
    from detector.export.runtime import Exported

    return subject.model is None or isinstance(subject.net, Exported)


def _runner(subject: Subject, file: Path) -> tuple[Callable, str]:
    """A function of an image that runs a model as a graph on one thread, and the name of its
    runtime; models of torch are exported to `file`."""
    from detector.export.exporter import export
    from detector.export.runtime import load_exported
    from detector.foreign.graph import load_foreign

    if subject.model is None:
        graph = load_foreign(subject.path, threads=1)
        blank = np.random.default_rng(0).integers(0, 256, (*subject.input_size, 3), np.uint8)
        values, _ = graph.prepare(blank)
        return lambda image: graph.run(values), graph.runtime
    path = subject.path
    if not _is_graph(subject):
        path = export(subject.net, subject.model.config, file)
    exported = load_exported(path, threads=1)
    return exported, exported.runtime


def known_score(subject: Subject, data: str) -> float | None:
    """The score of the evaluation kept with a retrained model, if it is of the same data."""
    folder = subject.model.folder if subject.model else None
    if folder is None or not (folder / EVALUATION).is_file():
        return None
    try:
        kept = read_json(folder / EVALUATION)
    except ValueError:  # damaged: as if it were not there, since it is only shown beside
        return None
    same = isinstance(kept, dict) and kept.get("data") == data
    return kept.get("score") if same else None
