"""Retrained models in MLflow's registry, as ONNX files that need nothing of this project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from detector.config.recipe import Evaluation

NAME, CHAMPION = "retina-nas", "champion"
SETTINGS = Evaluation(score_threshold=0.5)
"""Of the faces that the registered graph tells, as nas.detect does."""
COMPARABLE = ("data_fingerprint", "objective", "with_holdout", "machine")
"""Tags that must be the same for two scores to be compared; only a latency has a machine."""


def register(
    uri: str, run: str, folder: Path, tags: Mapping[str, object], *, champion: bool = False
) -> str:
    """Log the model in `folder` to `run` and register it as a new version of NAME.

    The graph takes uint8 [batch, 3, height, width], raw BGR, and tells the faces of all images:
    `image` [n], `boxes` [n, 4] xyxy px, `scores` [n], `landmarks` [n, 5, 2] where it has them.

    Args:
        tags: of the version; `score` and those of COMPARABLE decide on the alias CHAMPION.
        champion: it becomes the champion whatever its score.

    Returns:
        A line that tells what became of it.
    """
    import mlflow
    import onnx
    from mlflow.exceptions import MlflowException

    from detector.export.exporter import onnx_bytes
    from detector.export.runtime import Graph
    from nas.models.model_folder import WEIGHTS, load_model

    model = load_model(folder / WEIGHTS)
    graph = Graph(detector=model.config, post="nms", settings=SETTINGS)
    proto = onnx.load_from_string(onnx_bytes(model.net, graph))
    mlflow.set_tracking_uri(uri)
    with (
        warnings.catch_warnings(action="ignore"),  # MLflow's, about classes of its own
        mlflow.start_run(run_id=run, log_system_metrics=False),
    ):
        logged = mlflow.onnx.log_model(
            proto,
            name="model",
            signature=_signature(proto),
            input_example=_example(),
            pip_requirements=_requirements(),
            save_as_external_data=False,
        )
    store = mlflow.MlflowClient(uri)
    try:
        store.create_registered_model(NAME, description="Face detectors; see nas.retrain")
    except MlflowException:
        store.get_registered_model(NAME)  # it is there already; else this tells what is wrong
    texts = {key: str(value) for key, value in tags.items()}
    version = store.create_model_version(NAME, source=logged.model_uri, run_id=run, tags=texts)
    store.set_tag(run, "model_version", version.version)
    wins, why = becomes_champion(texts, _champion(store), asked=champion)
    if wins:
        store.set_registered_model_alias(NAME, CHAMPION, version.version)
    return f"MLflow: {NAME} version {version.version}, {why}"


def becomes_champion(
    tags: Mapping[str, str], current: tuple[str, Mapping[str, str]] | None, *, asked: bool
) -> tuple[bool, str]:
    """Whether a new version takes the alias, and why.

    Args:
        tags: of the new version.
        current: version and tags of the champion; none where there is none yet.
        asked: the user wants it.
    """
    if asked:
        return True, f"{CHAMPION} as asked"
    if current is None:
        return True, f"{CHAMPION}, the first one"
    number, its = current
    stays = f"version {number} stays {CHAMPION}"
    if "None" in (tags["score"], its.get("score", "None")):
        return False, f"{stays}: a score of both is needed to compare; --champion moves it"
    if any(tags.get(key) != its.get(key) for key in COMPARABLE):
        return False, f"{stays}: scored on other images or otherwise; --champion moves it"
    mine, best = float(tags["score"]), float(its["score"])
    if mine > best:
        return True, f"{CHAMPION}: score {mine:.4f}, version {number} had {best:.4f}"
    return False, f"{stays}: score {best:.4f}, this one has {mine:.4f}"


def _champion(store) -> tuple[str, Mapping[str, str]] | None:
    aliases = store.get_registered_model(NAME).aliases
    if CHAMPION not in aliases:
        return None
    found = store.get_model_version(NAME, aliases[CHAMPION])
    return found.version, found.tags


def _signature(proto):
    """MLflow's signature from the graph's inputs and outputs; -1 is any size."""
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(values) -> Schema:
        return Schema(
            [
                TensorSpec(
                    np.dtype(
                        onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                    ),
                    tuple(size.dim_value or -1 for size in value.type.tensor_type.shape.dim),
                    value.name,
                )
                for value in values
            ]
        )

    return ModelSignature(inputs=schema(proto.graph.input), outputs=schema(proto.graph.output))


def _example():
    """One drawn scene."""
    import cv2
    import numpy as np

    from detector.data.synthetic.scenes import SyntheticImages

    scene = cv2.resize(SyntheticImages("val", 1).image(0), (160, 128), interpolation=cv2.INTER_AREA)
    return {"images": np.ascontiguousarray(scene.transpose(2, 0, 1)[None])}


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")]
