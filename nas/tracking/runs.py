"""What the commands show in MLflow: a search, a retrain, an evaluation. Light to import."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from detector.config.recipe import Recipe
from trials.folders import read_manifest
from trials.stored import METRICS, Manifest, Metrics, Origin, Retrain
from trials.tracking.linked_run import LinkedRun, Result, RunFacts
from trials.tracking.study_view import DataFacts, MlflowView, StudyFacts
from trials.tracking.tracker import NullTracker, RetryingTracker, Tracker

NEWER_KEYS = ("initialization",)
"""Keys of a recipe that metrics.json of older versions lacks."""
LEVELS = ("easy", "medium", "hard")
_TAGS = ("data_name", "data_fingerprint", "seed", "sampler", "scheduler", "space_hash")


def study_facts(manifest: Manifest) -> StudyFacts:
    """What study.json says for the study's run."""
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


def tracker(uri: str, manifest: Manifest, again: str, live: bool = True) -> Tracker:
    """A study's tracker.

    Args:
        uri: MLflow store or server, or none.
        again: the command that makes the view anew.

    Raises:
        UserError: the store cannot be used.
    """
    if uri == "none":
        return NullTracker()
    facts = study_facts(manifest)
    return RetryingTracker(lambda: MlflowView(uri, facts, live), again)


@contextlib.contextmanager
def tracked_search(uri: str, folder: Path) -> Iterator[Tracker]:
    """The tracker of a search, told in the end whether the search ended."""
    made = tracker(uri, read_manifest(folder), sync_command(folder.name, folder.parent, uri))
    ended = False
    try:
        yield made
        ended = True
    finally:
        made.close(ended)


def sync_command(study: str | None, runs_dir: Path, uri: str) -> str:
    """The command that tells MLflow what it missed."""
    return (
        "python -m nas.sync"
        + (f" --study {study}" if study else "")
        + (f" --runs-dir {runs_dir}" if str(runs_dir) != "runs" else "")
        + (f" --tracking-uri {uri}" if uri != "sqlite:///mlflow.db" else "")
    )


class NullRun(contextlib.AbstractContextManager):
    """MLflow is switched off."""

    def __exit__(self, *error):
        pass

    def epoch(self, epoch):
        pass

    def end(self, metrics, champion=False):
        pass


class RetrainRun(contextlib.AbstractContextManager):
    """A retrain's run, from its beginning.

    Args:
        retrain: what is known of it before it begins.
        live: whether it is being trained now; else it is reported from what it left.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, retrain: Retrain, again: str, live: bool = True):
        self._uri = uri
        facts = _retrain_facts(retrain)
        self.key = facts.key
        self._run = LinkedRun(uri, facts, activity="the retrain", sync_command=again, live=live)

    def __exit__(self, *error) -> None:
        self._run.__exit__(*error)

    @property
    def finished(self) -> bool:
        """Whether MLflow has all of it already."""
        return self._run.finished

    def epoch(self, epoch: Mapping, at: float | None = None) -> None:
        """Plain data of a `detector.training.fit.Epoch`; `at` in Unix seconds (default: now)."""
        values = {f"loss_{name}": value for name, value in epoch["losses"].items()}
        values |= {f"watched_ap_{level}": value for level, value in (epoch["ap"] or {}).items()}
        self._run.log_epoch(
            epoch["epoch"], values | {"lr": epoch["lr"]}, time.time() if at is None else at
        )

    def end(self, metrics: Metrics, champion: bool = False) -> bool:
        """Log the results and register the model, both in the folder that `metrics` names.

        Returns:
            Whether MLflow has all of it.
        """
        from nas.models.model_folder import CONFIG
        from nas.tracking.registry import register

        folder, origin = Path(metrics.folder), metrics.origin
        names = ("accuracy_score", "speed_score", "score", "params", "macs")
        tags = {
            "score": metrics.score,
            "study": origin.study,
            "describe": metrics.describe,
            "data_fingerprint": origin.data_fingerprint,
            "objective": json.dumps(origin.objective.to_dict(), sort_keys=True),
            "with_holdout": origin.with_holdout,
        }
        if metrics.machine is not None:  # its milliseconds are worth nothing elsewhere
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
            after=lambda run: print(register(self._uri, run, folder, tags, champion=champion)),
        )


def retrain_run(uri: str, runs_dir: Path, retrain: Retrain) -> RetrainRun | NullRun:
    """The run of a retrain that begins; see `RetrainRun`."""
    if uri == "none":
        return NullRun()
    return RetrainRun(uri, retrain, sync_command(retrain.origin.study, runs_dir, uri))


def track_evaluation(
    uri: str, runs_dir: Path, result: Mapping, design: str, weights: Path, origin: Origin | None
) -> bool:
    """An evaluation's run, from what evaluation.json says.

    Args:
        weights: the file that was evaluated.
        origin: of the model's retrain; None where the file does not say.

    Returns:
        Whether MLflow has all of it.

    Raises:
        UserError: the store cannot be used.
    """
    if uri == "none":
        return True
    from nas.models.model_folder import sha256_of

    study = origin.study if origin else None
    coco = result.get("coco", {})
    looks = {name: result[name] for name in ("test_size", "flip", "scales") if name in result}
    standard = looks in ({}, {"test_size": "original", "flip": False, "scales": [1.0]})
    facts = RunFacts(
        role="evaluate",
        key=_digest(
            sha256_of(weights),
            result["data"],
            result["ground_truth"],
            result["machine"],
            *looks.values(),
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
        | looks,
    )
    names = ("params", "macs", "latency_ms", "accuracy_score", "speed_score", "score")
    again = sync_command(study, runs_dir, uri)
    with LinkedRun(uri, facts, activity="the evaluation", sync_command=again, live=False) as run:
        return run.finish(
            Result(
                metrics={name: result[name] for name in names}
                | {f"ap_{level}": result["ap"][level] for level in LEVELS}
                | {f"coco_{name}": value for name, value in coco.items() if value is not None},
                step=0,
                time=result["finished"],
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
        },
        data=DataFacts(
            name=origin.data_name,
            fingerprint=origin.data_fingerprint,
            source=origin.data.path,
            images={"train": origin.images},
        ),
    )


def _retrain_key(retrain: Retrain) -> str:
    """The same retrain has the same key, also where an older version wrote its metrics.json:
    keys of the recipe that are newer count only where they are not as they were before."""
    recipe, usual = retrain.recipe.to_dict(), Recipe().to_dict()
    for key in NEWER_KEYS:
        if recipe[key] == usual[key]:
            del recipe[key]
    return _digest(retrain.design, replace(retrain.origin, start=None).to_dict(), recipe)


def _version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    return {
        "mlflow.source.git.commit" if name == "commit" else f"version.{name}": version
        for name, version in versions.items()
    }


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
