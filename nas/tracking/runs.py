"""What the commands show in MLflow: a search, a retrain, an evaluation. Light to import."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from trials.folders import read_manifest
from trials.tracking.linked_run import LinkedRun, Result, RunFacts
from trials.tracking.study_view import DataFacts, MlflowView, StudyFacts
from trials.tracking.tracker import NullTracker, PatientTracker, Tracker

LEVELS = ("easy", "medium", "hard")
_TAGS = ("data_name", "data_fingerprint", "seed", "sampler", "scheduler", "space_hash")


def study_facts(manifest: Mapping) -> StudyFacts:
    """What study.json says for the study's run."""
    tags = {key: manifest[key] for key in _TAGS if key in manifest}
    tags |= _version_tags(manifest.get("versions", {}))
    tags |= {"mlflow.source.name": "nas.search", "mlflow.source.type": "LOCAL"}
    data = DataFacts(
        name=manifest["data_name"],
        fingerprint=manifest["data_fingerprint"],
        source=manifest["data"]["path"],
        images=manifest.get("images", {}),
    )
    return StudyFacts(
        name=manifest["name"],
        space=manifest["space"],
        created=manifest["created"],
        tags=tags,
        data=data,
    )


def tracker(uri: str, manifest: Mapping, again: str, live: bool = True) -> Tracker:
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
    return PatientTracker(lambda: MlflowView(uri, facts, live), again)


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
        metrics: what metrics.json will have in `title`, `describe`, `design`, `origin`, `recipe`
            and `versions`.
        live: it is being trained; else it is told from what it left.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, metrics: Mapping, again: str, live: bool = True):
        self._uri = uri
        facts = _retrain_facts(metrics)
        self.key = facts.key
        self._run = LinkedRun(uri, facts, doing="the retrain", again=again, live=live)

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
        self._run.epoch(
            epoch["epoch"], values | {"lr": epoch["lr"]}, time.time() if at is None else at
        )

    def end(self, metrics: Mapping, champion: bool = False) -> bool:
        """Tell metrics.json and register the model, both in the folder that `metrics` names.

        Returns:
            Whether MLflow has all of it.
        """
        from nas.models.model_folder import CONFIG, METRICS
        from nas.tracking.registry import register

        folder, origin = Path(metrics["folder"]), metrics["origin"]
        names = ("accuracy_score", "speed_score", "score", "params", "macs")
        tags = {
            "score": metrics["score"],
            "study": origin["study"],
            "describe": metrics["describe"],
            "data_fingerprint": origin["data_fingerprint"],
            "objective": json.dumps(origin["objective"], sort_keys=True),
            "with_holdout": origin["with_holdout"],
        }
        if metrics.get("machine") is not None:  # its milliseconds are worth nothing elsewhere
            tags["machine"] = metrics["machine"]
        return self._run.end(
            Result(
                metrics={name: metrics[name] for name in names}
                | {f"ap_{level}": value for level, value in (metrics["ap"] or {}).items()},
                step=metrics["recipe"]["epochs"],
                time=metrics["finished"],
                files=[folder / METRICS, folder / CONFIG],
                linked={"retrain_score": metrics["score"]},
            ),
            after=lambda run: print(register(self._uri, run, folder, tags, champion=champion)),
        )


def retrain_run(uri: str, runs_dir: Path, metrics: Mapping) -> RetrainRun | NullRun:
    """The run of a retrain that begins; see `RetrainRun`."""
    if uri == "none":
        return NullRun()
    return RetrainRun(uri, metrics, sync_command(metrics["origin"]["study"], runs_dir, uri))


def track_evaluation(
    uri: str, runs_dir: Path, result: Mapping, design: str, weights: Path, origin: Mapping | None
) -> bool:
    """An evaluation's run, from what evaluation.json says.

    Args:
        weights: the file that was evaluated.
        origin: of the model's retrain, plain data; none where the file does not tell.

    Returns:
        Whether MLflow has all of it.

    Raises:
        UserError: the store cannot be used.
    """
    if uri == "none":
        return True
    from nas.models.model_folder import sha256_of

    study, coco = origin and origin["study"], result.get("coco", {})
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
        space=origin and origin["space"],
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
    with LinkedRun(uri, facts, doing="the evaluation", again=again, live=False) as run:
        return run.end(
            Result(
                metrics={name: result[name] for name in names}
                | {f"ap_{level}": result["ap"][level] for level in LEVELS}
                | {f"coco_{name}": value for name, value in coco.items() if value is not None},
                step=0,
                time=result["finished"],
                linked={"evaluate_score": result["score"]} if standard else {},
            )
        )


def _retrain_facts(metrics: Mapping) -> RunFacts:
    origin, recipe = metrics["origin"], metrics["recipe"]
    tags = {
        "data_fingerprint": origin["data_fingerprint"],
        "with_holdout": origin["with_holdout"],
        "mlflow.source.name": "nas.retrain",
        "mlflow.source.type": "LOCAL",
    }
    return RunFacts(
        role="retrain",
        key=_digest(metrics["design"], origin | {"start": None}, recipe),
        title=f"retrain {metrics['title']}",
        space=origin["space"],
        study=origin["study"],
        design=metrics["design"],
        tags=tags | _version_tags(metrics.get("versions", {})),
        params={
            "epochs": recipe["epochs"],
            "size": recipe["size"],
            "batch_size": recipe["batch_size"],
            "lr": recipe["optimizer"]["lr"],
            "weights": recipe["weights"] or "scratch",
            "images": origin["images"],
            "describe": metrics["describe"],
        },
        data=DataFacts(
            name=origin["data_name"],
            fingerprint=origin["data_fingerprint"],
            source=origin["data"]["path"],
            images={"train": origin["images"]},
        ),
    )


def _version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    return {
        "mlflow.source.git.commit" if name == "commit" else f"version.{name}": version
        for name, version in versions.items()
    }


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
