"""MLflow runs of a search, a retrain, an evaluation. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detector.base.files import sha256_of
from detector.config.recipe import Recipe
from trials.folders import read_manifest
from trials.hints import command
from trials.record import LEVELS, finds_nothing
from trials.stored import METRICS, Manifest, Metrics, Origin, Retrain
from trials.tracking.linked_run import LinkedRun, Result, RunFacts
from trials.tracking.study_view import DataFacts, MlflowView, StudyFacts
from trials.tracking.tracker import NullTracker, RetryingTracker, Tracker

NEWER_KEYS = (
    "initialization",
    *(
        f"augmentation.{key}"
        for key in (
            "crop",
            "clip_boxes",
            "padding",
            "interpolation",
            "hue",
            "permute_channels",
            "ignore_invalid",
        )
    ),
    "optimizer.decay_norms",
    "evaluation.canvas",
    "evaluation.interpolation",
    "loss.unmatched",
    "loss.min_positives",
    "distillation",
)
"""Keys of a recipe that are missing from the metrics.json of older versions."""
_TAGS = ("data_name", "data_fingerprint", "seed", "sampler", "scheduler", "proxies", "space_hash")


def study_facts(manifest: Manifest) -> StudyFacts:
    """The facts of a study's run, from its study.json."""
    tags: dict[str, object] = {key: getattr(manifest, key) for key in _TAGS}
    tags |= _version_tags(manifest.versions)
    tags |= {"mlflow.source.name": "nas.search", "mlflow.source.type": "LOCAL"}
    return StudyFacts(
        name=manifest.name,
        space=manifest.space,
        created=manifest.created,
        tags=tags,
        data=DataFacts(
            name=manifest.data_name,
            fingerprint=manifest.data_fingerprint,
            source=manifest.data.path,
            images=manifest.images,
        ),
    )


def open_tracker(uri: str, manifest: Manifest, sync_command: str, live: bool = True) -> Tracker:
    """The tracker of a study.

    Args:
        uri: MLflow store or server, or none.
        sync_command: the command that rebuilds the view.
        live: whether the search is running now.

    Raises:
        UserError: the store cannot be used.
    """
    if uri == "none":
        return NullTracker()
    facts = study_facts(manifest)
    return RetryingTracker(lambda: MlflowView(uri, facts, live), sync_command)


@contextlib.contextmanager
def tracked_search(uri: str, folder: Path) -> Iterator[Tracker]:
    """The tracker of a running search, closed at its end."""
    command = sync_command(folder.name, folder.parent, uri)
    tracker = open_tracker(uri, read_manifest(folder), command)
    ended = False
    try:
        yield tracker
        ended = True
    finally:
        tracker.close(ended)


def sync_command(study: str | None, runs_dir: Path, uri: str) -> str:
    """The command that sends MLflow what it missed."""
    return command("nas.sync", {"study": study, "runs_dir": runs_dir, "tracking_uri": uri})


class NullRun(contextlib.AbstractContextManager):
    """Takes the place of a `RetrainRun` if MLflow is switched off."""

    def __exit__(self, *error) -> None:
        pass

    def log_epoch(self, epoch: Mapping, ended: float | None = None) -> None:
        pass

    def finish(self, metrics: Metrics, champion: bool = False) -> bool:
        return True


class RetrainRun(contextlib.AbstractContextManager):
    """The run of a retrain.

    Args:
        retrain: its facts.
        sync_command: the command that sends MLflow what it missed.
        live: whether it is being trained now; otherwise it is reported from its files.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, retrain: Retrain, sync_command: str, live: bool = True):
        self._uri = uri
        facts = _retrain_facts(retrain)
        self.key = facts.key
        self._run = LinkedRun(
            uri, facts, activity="the retrain", sync_command=sync_command, live=live
        )

    def __exit__(self, *error) -> None:
        self._run.__exit__(*error)

    @property
    def finished(self) -> bool:
        """Whether MLflow has the complete run already."""
        return self._run.finished

    def log_epoch(self, epoch: Mapping, ended: float | None = None) -> None:
        """Log the metrics of an epoch.

        Args:
            epoch: a `detector.training.epoch.Epoch` as plain data.
            ended: in Unix seconds; None means now.
        """
        values = {f"loss_{name}": value for name, value in epoch["losses"].items()}
        values |= {f"watched_ap_{level}": value for level, value in (epoch["ap"] or {}).items()}
        self._run.log_epoch(
            epoch["epoch"],
            values | {"lr": epoch["lr"]},
            time.time() if ended is None else ended,
        )

    def finish(self, metrics: Metrics, champion: bool = False) -> bool:
        """Log the results, register the model, and end the run.

        Args:
            metrics: the results; their `folder` holds the model.
            champion: the model becomes the champion whatever its score.

        Returns:
            Whether MLflow has the complete run.
        """
        from nas.models.model_folder import CONFIG
        from nas.tracking.registry import BUILT_IN, register

        folder, origin = Path(metrics.folder), metrics.origin
        names = ("accuracy_score", "speed_score", "score", "params", "macs")
        tags = {
            "score": metrics.score,
            "study": origin.study,
            "describe": metrics.describe,
            "data_name": BUILT_IN if origin.data.path == "synthetic" else origin.data_name,
            "data_fingerprint": origin.data_fingerprint,
            "objective": json.dumps(origin.objective.to_dict(), sort_keys=True),
            "with_holdout": origin.with_holdout,
        }
        if metrics.machine is not None:  # latencies of other machines cannot be compared
            tags["machine"] = metrics.machine
        return self._run.finish(
            Result(
                metrics={name: getattr(metrics, name) for name in names}
                | {f"ap_{level}": value for level, value in (metrics.ap or {}).items()},
                step=metrics.recipe.epochs,
                time=metrics.finished,
                files=[folder / METRICS, folder / CONFIG],
                trial_tags={"retrain_score": metrics.score},
            ),
            after=lambda run: print(
                register(
                    self._uri,
                    run,
                    folder,
                    tags,
                    champion=champion,
                    nothing=finds_nothing(metrics.ap) if metrics.ap else None,
                )
            ),
        )


def retrain_run(uri: str, runs_dir: Path, retrain: Retrain) -> RetrainRun | NullRun:
    """The run of a retrain that is about to start, see `RetrainRun`."""
    if uri == "none":
        return NullRun()
    return RetrainRun(uri, retrain, sync_command(retrain.origin.study, runs_dir, uri))


def track_evaluation(
    uri: str,
    runs_dir: Path,
    result: Mapping,
    design: str,
    weights: Path,
    origin: Origin | None,
    files: Sequence[Path] = (),
) -> bool:
    """Log an evaluation as a run.

    Args:
        result: the evaluation, as evaluation.json has it.
        design: `arch_hash` of the model.
        weights: the file that was evaluated.
        origin: of the model's retrain; None if unknown.
        files: artifacts of the run.

    Returns:
        Whether MLflow has the complete run.

    Raises:
        UserError: the store cannot be used.
    """
    if uri == "none":
        return True

    study = origin.study if origin else None
    coco, own = result.get("coco", {}), result.get("metrics", {})
    tta = {name: result[name] for name in ("test_size", "flip", "scales") if name in result}
    standard = tta in ({}, {"test_size": "original", "flip": False, "scales": [1.0]})
    facts = RunFacts(
        role="evaluate",
        key=_digest(
            sha256_of(weights),
            result["data"],
            result["ground_truth"],
            result["machine"],
            *tta.values(),
        ),
        title=f"evaluate {result['model']}",
        space=origin.space if origin else None,
        study=study,
        design=design,
        tags={
            "ground_truth": result["ground_truth"],
            "machine": result["machine"],
            "mlflow.source.name": "nas.evaluate",
            "mlflow.source.type": "LOCAL",
        },
        params={
            "checkpoint": result["checkpoint"],
            "data": result["data"],
            "images": result["images"],
            "describe": result["describe"],
        }
        | tta,
    )
    names = ("params", "macs", "latency_ms", "accuracy_score", "speed_score", "score")
    command = sync_command(study, runs_dir, uri)
    with LinkedRun(uri, facts, activity="the evaluation", sync_command=command, live=False) as run:
        return run.finish(
            Result(
                metrics={name: result[name] for name in names}
                | {f"ap_{level}": result["ap"][level] for level in LEVELS}
                | {f"coco_{name}": value for name, value in coco.items() if value is not None}
                | {f"own_{name}": value for name, value in own.items()},
                step=0,
                time=result["finished"],
                files=files,
                trial_tags={"evaluate_score": result["score"]} if standard else {},
            )
        )


def _retrain_facts(retrain: Retrain) -> RunFacts:
    origin, recipe = retrain.origin, retrain.recipe
    tags = {
        "data_fingerprint": origin.data_fingerprint,
        "with_holdout": origin.with_holdout,
        "mlflow.source.name": "nas.retrain",
        "mlflow.source.type": "LOCAL",
    }
    return RunFacts(
        role="retrain",
        key=_retrain_key(retrain),
        title=f"retrain {retrain.title}",
        space=origin.space,
        study=origin.study,
        design=retrain.design,
        tags=tags | _version_tags(retrain.versions),
        params={
            "epochs": recipe.epochs,
            "size": recipe.size,
            "batch_size": recipe.batch_size,
            "lr": recipe.optimizer.lr,
            "weights": recipe.weights or "scratch",
            "images": origin.images,
            "describe": retrain.describe,
        }
        | ({"teacher": origin.teacher.weights.title} if origin.teacher else {}),
        data=DataFacts(
            name=origin.data_name,
            fingerprint=origin.data_fingerprint,
            source=origin.data.path,
            images={"train": origin.images},
        ),
    )


def _retrain_key(retrain: Retrain) -> str:
    """Identifies a retrain, also if an older version wrote its metrics.json."""
    return _digest(retrain.design, retrain.origin.identity, older_keys(retrain.recipe))


def older_keys(recipe: Recipe) -> dict:
    """A recipe as plain data without those of NEWER_KEYS that have their defaults."""
    data, defaults = recipe.to_dict(), Recipe().to_dict()
    for path in NEWER_KEYS:
        own, default = data, defaults
        *sections, key = path.split(".")
        for section in sections:
            own, default = own[section], default[section]
        if own[key] == default[key]:
            del own[key]
    return data


def _version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    return {
        "mlflow.source.git.commit" if name == "commit" else f"version.{name}": version
        for name, version in versions.items()
    }


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
