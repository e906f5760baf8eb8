"""Retrained models in MLflow's model registry, as ONNX files that run without this project."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from trials.tracking.mlflow_store import as_text

NAME, CHAMPION = "retina-nas", "champion"
SETTINGS = Evaluation(score_threshold=0.5)
"""The registered graph keeps the same faces as nas.detect."""
BUILT_IN = "builtin"
"""Value of the tag data_name for the built-in drawn scenes."""
COMPARABLE = ("data_fingerprint", "objective", "with_holdout", "machine")
"""Tags that must be equal for two scores to be compared; machine exists only with a latency."""
Version = tuple[str, Mapping[str, str]]
"""Number and tags of a registered model."""


def register(
    uri: str,
    run: str,
    folder: Path,
    tags: Mapping[str, object],
    *,
    champion: bool = False,
    nothing: str | None = None,
) -> str:
    """Log the model in `folder` to `run` and register it as a new version of NAME.

    The graph takes uint8 [batch, 3, height, width], raw BGR, and returns the faces of all images:
    `image` [n], `boxes` [n, 4] xyxy px, `scores` [n], and with landmarks `landmarks` [n, 5, 2] px.

    Args:
        uri: MLflow store or server.
        run: id of the run.
        tags: of the version; `score`, `data_name` and those of COMPARABLE decide on its aliases.
        champion: the model becomes the champion whatever its score.
        nothing: why the model gets no alias unless that is asked for, see `finds_nothing`.

    Returns:
        One line: the version, and which aliases it has; or why it is not registered.
    """
    import mlflow
    import onnx
    from mlflow.exceptions import MlflowException

    from detector.export.exporter import onnx_bytes
    from detector.export.runtime import Graph
    from nas.models.model_folder import WEIGHTS, load_model

    model = load_model(folder / WEIGHTS)
    graph = Graph(detector=model.config, post="nms", settings=SETTINGS)
    try:
        proto = onnx.load_from_string(onnx_bytes(model.net, graph))
    except UserError as error:
        return f"MLflow: not registered as a model: {error}"
    with fluent_store(uri):
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
        tag_texts = {key: as_text(value) for key, value in tags.items()}
        version = store.create_model_version(
            NAME, source=logged.model_uri, run_id=run, tags=tag_texts
        )
    store.set_tag(run, "model_version", version.version)
    current = _holder(store, CHAMPION)
    if current is not None and _holder(store, data_alias(current[1])) is None:
        store.set_registered_model_alias(NAME, data_alias(current[1]), current[0])  # an older store
    aliases, reason = aliases_of(
        tag_texts,
        best=_best_on(store, tag_texts),
        champion=current,
        requested=champion,
    )
    if nothing and not champion:
        aliases, reason = [], f"no {CHAMPION}: {nothing}"
    for alias in aliases:
        store.set_registered_model_alias(NAME, alias, version.version)
    return f"MLflow: {NAME} version {version.version}, {reason}"


@contextlib.contextmanager
def fluent_store(uri: str) -> Iterator[None]:
    """MLflow's functions without a client log to this store or server. Theirs is global, and set in
    the environment for later processes, too; so the one before comes back."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: as if never set


def data_alias(tags: Mapping[str, str]) -> str:
    """The alias of the best model on the same images, such as champion-wider-3fa9c1."""
    name = re.sub(r"[^a-z0-9]+", "-", tags.get("data_name", "").lower()).strip("-")[:32] or "data"
    return f"{CHAMPION}-{name}-{tags['data_fingerprint'][:6]}"


def aliases_of(
    tags: Mapping[str, str], *, best: Version | None, champion: Version | None, requested: bool
) -> tuple[list[str], str]:
    """The aliases that a new version gets, and why.

    The best version on each set of images has their `data_alias`. CHAMPION follows the images that
    were trained on last, except that a model of the built-in scenes never takes it from one of
    other images.

    Args:
        tags: of the new version.
        best: the version that has the `data_alias` until now.
        champion: the champion until now.
        requested: the user asks for it.
    """
    alias = data_alias(tags)
    if requested:
        return [alias, CHAMPION], f"{CHAMPION} as requested"
    if champion is None:
        return [alias, CHAMPION], f"{CHAMPION}, the first one"
    number, champion_tags = champion
    same_images = champion_tags["data_fingerprint"] == tags["data_fingerprint"]
    if best is not None:
        better, reason = compare(tags, best)
        if not better:
            return [], reason
    else:
        reason = "the first one on these images"
    if same_images:
        return [alias, CHAMPION], f"{CHAMPION}: {reason}"
    if tags["data_name"] == BUILT_IN and champion_tags.get("data_name") != BUILT_IN:
        return [alias], (
            f"{alias}: {reason}; version {number} remains {CHAMPION}: it is not of the built-in "
            "scenes"
        )
    return [alias, CHAMPION], (
        f"{CHAMPION} and {alias}: {reason}; version {number}, {CHAMPION} until now, was scored on "
        f"other images and keeps its alias {data_alias(champion_tags)}"
    )


def compare(tags: Mapping[str, str], best: Version) -> tuple[bool, str]:
    """Whether a new version is better than the best one on the same images, and why."""
    number, best_tags = best
    unchanged = f"version {number} remains the best on these images"
    if "None" in (tags["score"], best_tags.get("score", "None")):
        return False, f"{unchanged}: one of the two has no score; --champion overrides"
    if any(tags.get(key) != best_tags.get(key) for key in COMPARABLE):
        return False, f"{unchanged}: scored in another way; --champion overrides"
    score, best_score = float(tags["score"]), float(best_tags["score"])
    if score > best_score:
        return True, f"score {score:.4f}, version {number} had {best_score:.4f}"
    return False, f"{unchanged}: score {best_score:.4f}, this one has {score:.4f}"


def _best_on(store, tags: Mapping[str, str]) -> Version | None:
    """The best version on the images of a new one; these may have had another name, by which its
    alias differs."""
    ending = data_alias(tags).rpartition("-")[2]
    others = [
        alias
        for alias in store.get_registered_model(NAME).aliases
        if alias.startswith(f"{CHAMPION}-") and alias.endswith(f"-{ending}")
    ]
    holders = [_holder(store, alias) for alias in (data_alias(tags), *others)]
    return next((holder for holder in holders if holder is not None), None)


def _holder(store, alias: str) -> Version | None:
    """The version that has an alias; None if there is none."""
    aliases = store.get_registered_model(NAME).aliases
    if alias not in aliases:
        return None
    version = store.get_model_version(NAME, aliases[alias])
    tags = {"data_fingerprint": ""} | version.tags
    if "data_name" not in tags:  # registered before this tag existed
        inputs = store.get_run(version.run_id).inputs.dataset_inputs
        sources = [json.loads(entry.dataset.source).get("uri") for entry in inputs]
        tags["data_name"] = BUILT_IN if "synthetic" in sources else "data"
    return version.version, tags


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
