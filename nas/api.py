"""The commands as functions, for notebooks and programs.

    from nas.api import search, open_study, retrain, evaluate, load_model, detect

    study = search("quick", trials=8)
    study.trials                      # a pandas table
    model = retrain(study, epochs=20)
    evaluate(model)["ap"]
    detect(model, "photo.jpg")

They print what the commands print, and raise `UserError`, one line, where these exit with code 2.
Nothing heavy is imported before a function needs it.
"""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.base.errors import UserError
from detector.base.plugins import load_plugin
from detector.base.process import disable_telemetry, limit_opencv
from detector.config.recipe import DataChoice, Evaluation
from trials.hints import DEFAULT_RUNS_DIR, DEFAULT_TRACKING_URI

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from analysis.records.studies import StudyData
    from nas.models.model_folder import Model
    from trials.record import TrialRecord
    from trials.stored import Manifest

__all__ = [
    "Study",
    "UserError",
    "detect",
    "evaluate",
    "load_model",
    "load_plugin",
    "open_study",
    "retrain",
    "search",
]

disable_telemetry()  # before MLflow, Ray and OpenCV are imported
limit_opencv()


class Study:
    """A search on disk, as it was when this object was created.

    Args:
        name: None means the newest study.

    Raises:
        UserError: there is no such study, or it cannot be read.
    """

    def __init__(self, name: str | None = None, runs_dir: Path | str = DEFAULT_RUNS_DIR):
        from analysis.records.load import load_records
        from trials.folders import find_study, read_manifest, study_or_newest

        self.runs_dir = Path(runs_dir)
        self.name: str = study_or_newest(self.runs_dir, name)
        self.folder: Path = find_study(self.runs_dir, self.name)
        self.manifest: Manifest = read_manifest(self.folder)
        """What the study is: space, sampler, seed, data, versions."""
        self.records: Sequence[TrialRecord] = load_records(self.folder)
        """All trials by number, the baseline first."""

    def __repr__(self) -> str:
        return f"<study {self.name} in {self.folder}: {len(self.records)} trials>"

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, as in trials.csv; the sampler's choices are the last columns."""
        import pandas as pd

        from analysis.records.tables import trial_row

        return pd.DataFrame([trial_row(record) for record in self.records]).set_index("number")

    @property
    def best(self) -> TrialRecord:
        """The completed trial with the best score.

        Raises:
            UserError: no trial is completed, or none has learned anything.
        """
        from trials.record import best_of

        best = best_of(self.records)
        if best is None:
            raise UserError(f"study {self.name} has no completed trial yet; resume the search")
        return best

    @property
    def front(self) -> list[TrialRecord]:
        """The completed trials that no other one beats in both accuracy and speed, fastest
        first."""
        from analysis.statistics.pareto import front_of
        from trials.record import Status

        completed = [r for r in self.records if r.status is Status.COMPLETED]
        return front_of(completed, self.manifest.objective.metric)

    @cached_property
    def data(self) -> StudyData:
        """The study as reports see it: comparisons, importances, progress, retrained models.

        Raises:
            UserError: there is nothing to compare yet.
        """
        from analysis.records.studies import load_study

        return load_study(self.runs_dir, self.name)

    def report(self) -> Path:
        """Write the report; returns the page's path.

        Raises:
            UserError: there is nothing to compare yet.
        """
        from analysis.report import write_page

        return write_page([self.data])


def search(
    space: str | Path,
    *,
    trials: int | None = None,
    study: str | None = None,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    resume: bool = False,
    data: str | Path | None = None,
    fraction: float = DataChoice.fraction,
    holdout: float = DataChoice.holdout,
    select_on: str = DataChoice.select_on,
    sampler: str | None = None,
    scheduler: str | None = None,
    proxies: str = "auto",
    budget: str | None = None,
    no_prior: bool = False,
    inherit: bool = False,
    enqueue: Path | str | None = None,
    from_study: str | None = None,
    rounds: int = 1,
    full_recipe: Path | str | None = None,
    max_failures: float | None = None,
    seed: int = 0,
    device: str = "auto",
    concurrency: int | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    address: str | None = None,
    tracking_uri: str = DEFAULT_TRACKING_URI,
) -> Study:
    """Search a space, as `python -m nas.search` does; the arguments are its flags.

    Args:
        space: a YAML file, or a shipped one by name, such as "retina".

    Raises:
        UserError: an argument, a file or the images are wrong, or the search cannot go on.
    """
    arguments = dict(locals())
    from nas.engine.options import SearchOptions
    from nas.rounds.search_in_rounds import search_in_rounds

    as_parsed = {
        "runs_dir": Path(runs_dir),
        "enqueue": None if enqueue is None else Path(enqueue),
        "full_recipe": None if full_recipe is None else str(full_recipe),
        "data": None if data is None else str(data),
    }
    options = SearchOptions.of(Namespace(**arguments | as_parsed), _given(search, arguments))
    return Study(search_in_rounds(options)["study"], runs_dir)


def open_study(name: str | None = None, runs_dir: Path | str = DEFAULT_RUNS_DIR) -> Study:
    """A study on disk; None means the newest one.

    Raises:
        UserError: there is no such study, or it cannot be read.
    """
    return Study(name, runs_dir)


def retrain(
    study: Study | str | None = None,
    *,
    trial: int | None = None,
    preset: str | None = None,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    tracking_uri: str = DEFAULT_TRACKING_URI,
    **options: Any,
) -> Model:
    """Train a design in full, as `python -m nas.retrain` does.

    Args:
        study: None means the newest one; with `preset` and `data`, none.
        trial: of the study; None means the best one.
        preset: a published design in place of a trial: a name, or a YAML file.
        options: other fields of `nas.retraining.options.RetrainOptions`, which are the flags of
            the command: epochs, size, batch_size, recipe, weights, teacher, with_holdout, data, …

    Raises:
        UserError: an argument, a file or the images are wrong, or the training fails.
    """
    from nas.models.model_folder import WEIGHTS
    from nas.models.model_folder import load_model as load_weights
    from nas.retraining.options import RetrainOptions
    from nas.retraining.retrain import retrain_one

    name = study.name if isinstance(study, Study) else study
    if isinstance(study, Study):
        runs_dir = study.runs_dir
    chosen = RetrainOptions(
        study=name,
        runs_dir=Path(runs_dir),
        trial=trial,
        preset=preset,
        tracking_uri=tracking_uri,
        **options,
    )
    metrics = retrain_one(chosen)
    return load_weights(Path(metrics.folder) / WEIGHTS)


def load_model(
    model: Study | Path | str | None = None,
    *,
    preset: str | None = None,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
) -> Model:
    """A trained detector: `.net` is its torch module, `.config` its design.

    Args:
        model: weights (weights.pt, a released file), an exported model (.onnx, .xml), a study whose
            retrained model is meant, or None: the most recently retrained model.
        preset: the design of weights of another program.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from nas.models.model_folder import chosen_model

    return chosen_model(_choice(model, preset, runs_dir))


def evaluate(
    model: Model | Study | Path | str | None = None,
    *,
    preset: str | None = None,
    data: str | Path | None = None,
    settings: Evaluation | None = None,
    coco: bool = False,
    output: Path | str | None = None,
    beside: str | None = None,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    device: str = "auto",
    tracking_uri: str = DEFAULT_TRACKING_URI,
) -> dict:
    """Score a model on the val images, as `python -m nas.evaluate` does.

    Args:
        model: as for `load_model`, or what that returned; an .onnx file may be another program's.
        settings: test size, test-time augmentation and post-processing; None means the preset's
            own, or the defaults.

    Returns:
        What `--json` writes: "ap" {"easy", "medium", "hard"}, "score", "macs", "latency_ms", …

    Raises:
        UserError: the model or the data cannot be used.
    """
    from nas.evaluation.model import evaluate_model
    from nas.evaluation.options import EvaluateOptions, preset_settings

    choice = _choice(model, preset, runs_dir)
    published, settings_of = preset_settings(choice.preset, choice.model)
    return evaluate_model(
        EvaluateOptions(
            model=choice,
            data=None if data is None else str(data),
            coco=coco,
            output=None if output is None else Path(output),
            settings=published if settings is None else settings,
            settings_of=settings_of if settings is None else None,
            beside=beside,
            device=device,
            tracking_uri=tracking_uri,
        )
    )


def detect(
    model: Model,
    image: np.ndarray | Path | str,
    *,
    confidence: float = 0.5,
    settings: Evaluation | None = None,
    device: str = "auto",
) -> list[dict]:
    """The faces in one image.

    Args:
        image: a file, turned upright by its EXIF orientation; or uint8 [height, width, 3], BGR.
        confidence: least score of a face, in [0, 1].
        settings: test size, test-time augmentation and post-processing, in place of the defaults
            with `confidence`.

    Returns:
        {"bbox": [x1, y1, x2, y2], "score", "landmarks": [[x, y] × 5]} of each face in px, highest
        score first; "landmarks" only if the model predicts them.

    Raises:
        UserError: the image cannot be read, or is no such array.
    """
    import numpy as np

    from detector.data.image_files import read_image
    from detector.data.types import UnreadableImage
    from detector.inference.drawing import to_plain
    from detector.inference.predict import detect_tta
    from detector.training.fit import choose_device

    if not isinstance(image, np.ndarray):
        try:
            image = read_image(Path(image), upright=True)
        except UnreadableImage as error:
            raise UserError(str(error)) from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(
            f"image: an array must be uint8 [height, width, 3], not {image.dtype} "
            f"{list(image.shape)}"
        )
    where = choose_device(device)
    settings = settings or Evaluation(score_threshold=confidence)
    (found,) = detect_tta(model.net.to(where).eval(), model.config, [image], settings, where)
    return to_plain(found, image.shape[:2], image.shape[:2])


def _given(function: Callable, arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a call that differ from their defaults, for the command that repeats it."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if value != parameters[name].default}


def _choice(model, preset: str | None, runs_dir: Path | str):
    """The `ModelChoice` of what names a model."""
    from nas.models.model_folder import Model, ModelChoice

    if isinstance(model, Study):
        return ModelChoice(runs_dir=model.runs_dir, study=model.name)
    if isinstance(model, Model):
        model = model.path
    if model is None:
        return ModelChoice(runs_dir=Path(runs_dir))
    path = Path(model)
    if preset is None and path.suffix in (".onnx", ".xml"):
        return ModelChoice(runs_dir=Path(runs_dir), model=path)
    return ModelChoice(runs_dir=Path(runs_dir), checkpoint=path, preset=preset)
