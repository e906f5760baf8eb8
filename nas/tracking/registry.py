"""Retrained models in MLflow's model registry, as ONNX files that run without this project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from detector.config.recipe import Evaluation

NAME, CHAMPION = "retina-nas", "champion"
SETTINGS = Evaluation(score_threshold=0.5)
"""The registered graph keeps the same faces as nas.detect."""
COMPARABLE = ("data_fingerprint", "objective", "with_holdout", "machine")
"""Tags that must be equal for two scores to be compared; machine exists only with a latency."""


def register(
    uri: str, run: str, folder: Path, tags: Mapping[str, object], *, champion: bool = False
) -> str:
    """Log the model in `folder` to `run` and register it as a new version of NAME.

    The graph takes uint8 [batch, 3, height, width], raw BGR, and returns the faces of all images:
    `image` [n], `boxes` [n, 4] xyxy px, `scores` [n], and with landmarks `landmarks` [n, 5, 2] px.

    Args:
        uri: MLflow store or server.
        run: id of the run.
        tags: of the version; `score` and those of COMPARABLE decide on the alias CHAMPION.
        champion: the model becomes the champion whatever its score.

    Returns:
        One line: the version, and whether it is the champion.
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
        warnings.catch_warnings(action="ignore"),  # from MLflow, about its own classes
        mlflow.start_run(run_id=run, log_system_metrics=False),
    ):
        logged = mlflow.onnx.log_model(
            proto,
            name="model",
            signature=_signature(proto),
            input_example=_input_example(),
            pip_requirements=_requirements(),
            save_as_external_data=False,
        )
    store = mlflow.MlflowClient(uri)
    try:
        store.create_registered_model(NAME, description="Face detectors; see nas.retrain")
    except MlflowException:
        store.get_registered_model(NAME)  # it exists already; otherwise this raises the cause
    tag_texts = {key: str(value) for key, value in tags.items()}
    version = store.create_model_version(NAME, source=logged.model_uri, run_id=run, tags=tag_texts)
    store.set_tag(run, "model_version", version.version)
    promoted, reason = becomes_champion(tag_texts, _champion(store), requested=champion)
    if promoted:
        store.set_registered_model_alias(NAME, CHAMPION, version.version)
    return f"MLflow: {NAME} version {version.version}, {reason}"


def becomes_champion(
    tags: Mapping[str, str], current: tuple[str, Mapping[str, str]] | None, *, requested: bool
) -> tuple[bool, str]:
    """Whether a new version gets the alias CHAMPION, and why.

    Args:
        tags: of the new version.
        current: version and tags of the champion; None if there is none yet.
        requested: the user asks for it.
    """
    if requested:
        return True, f"{CHAMPION} as requested"
    if current is None:
        return True, f"{CHAMPION}, the first one"
    number, current_tags = current
    unchanged = f"version {number} remains {CHAMPION}"
    if "None" in (tags["score"], current_tags.get("score", "None")):
        return False, f"{unchanged}: one of the two has no score; --champion overrides"
    if any(tags.get(key) != current_tags.get(key) for key in COMPARABLE):
        return False, f"{unchanged}: scored on other images or in another way; --champion overrides"
    score, current_score = float(tags["score"]), float(current_tags["score"])
    if score > current_score:
        return True, f"{CHAMPION}: score {score:.4f}, version {number} had {current_score:.4f}"
    return False, f"{unchanged}: score {current_score:.4f}, this one has {score:.4f}"


def _champion(store) -> tuple[str, Mapping[str, str]] | None:
    """Version and tags of the current champion."""
    aliases = store.get_registered_model(NAME).aliases
    if CHAMPION not in aliases:
        return None
    version = store.get_model_version(NAME, aliases[CHAMPION])
    return version.version, version.tags


def _signature(proto):
    """MLflow's signature of the graph's inputs and outputs; -1 means any size."""
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


def _input_example() -> dict:
    """One drawn scene."""
    import cv2
    import numpy as np

    from detector.data.synthetic.scenes import SyntheticImages

    scene = cv2.resize(SyntheticImages("val", 1).image(0), (160, 128), interpolation=cv2.INTER_AREA)
    return {"images": np.ascontiguousarray(scene.transpose(2, 0, 1)[None])}


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")]
