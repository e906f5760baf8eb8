"""What all tests share: data to run on, and few threads (the machine may have two cores)."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when torch and numpy load, so that neither is imported

gc.disable()  # while tests are collected, which makes a million objects that stay

PROJECT = Path(__file__).resolve().parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"


def pytest_collection_finish():
    gc.freeze()  # a collection of garbage that looks at all of them takes 0.3 s
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # otherwise extension modules report leaks when the interpreter ends


@pytest.fixture(scope="session")
def wider_root() -> Path:
    """Folder of real WIDER FACE images in the official layout."""
    root = SHARED_DATA / "widerface"
    if not root.is_dir():
        pytest.skip("no WIDER FACE images in ../shared/data/widerface")
    return root


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """An empty folder that the processes of this run of pytest share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def traced_once(shared_folder):
    """For exports to ONNX: torch's exporter, which takes 6 to 20 s, traces each design with the
    same weights once. What comes after it, such as NMS, metadata and checks, is done each time."""
    from detector.base.files import write_bytes
    from detector.export import exporter

    traced_bytes = exporter.traced_bytes

    def traced(model, graph) -> bytes:
        key = hashlib.sha256(f"{graph.detector.to_dict()} {graph.post == 'none'}".encode())
        for name, weight in model.state_dict().items():
            key.update(name.encode() + weight.numpy().tobytes())
        path = shared_folder / f"{key.hexdigest()}.onnx"
        if not path.exists():
            write_bytes(path, traced_bytes(model, graph))
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "traced_bytes", traced)
        yield


@pytest.fixture(scope="session")
def quick_databases():
    """SQLite waits for no disk, as no test cuts the power, and Optuna's migrations are read once
    instead of whenever a study is opened: 0.1 s of 0.2 s."""
    from optuna.storages._rdb.storage import _VersionManager
    from sqlalchemy import Engine, event

    create_script = _VersionManager._create_alembic_script
    scripts = []  # of one element

    def create_once(self):
        if not scripts:
            scripts.append(create_script(self))
        return scripts[0]

    def do_not_wait(connection, _):
        with contextlib.suppress(sqlite3.DatabaseError):  # a damaged file; what follows says so
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", do_not_wait)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", create_once)
        yield
    event.remove(Engine, "connect", do_not_wait)


@pytest.fixture
def public_path():
    """An empty folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="retina-") as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture
def closed():
    """Function: a path below `public_path` → a context in which this user may neither read nor
    enter it. A root, who may do anything, is another user meanwhile."""

    @contextlib.contextmanager
    def close(path: Path):
        mode, is_root = path.stat().st_mode, os.geteuid() == 0
        path.chmod(0)
        try:
            if is_root:
                os.seteuid(65534)
            if os.access(path, os.R_OK, effective_ids=True):
                pytest.skip("this user can read everything")
            yield
        finally:
            if is_root:
                os.seteuid(0)
            path.chmod(mode)

    return close


@pytest.fixture(scope="session")
def tiny_data():
    """A `Data` of 20 + 5 + 8 drawn images (train, hold-out, val)."""
    import helpers

    import detector.data.open
    from detector.config.recipe import DataChoice

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector.data.open, "SyntheticImages", helpers.scenes_drawn_once())
        return detector.data.open.synthetic_data(DataChoice(path="synthetic"), train=25, val=8)


@pytest.fixture
def few_images(monkeypatch):
    """The built-in set has 19 + 8 images."""
    import helpers

    import detector.data.open

    def few(choice, parts=("train", "val")):
        if choice.path == "synthetic":
            return detector.data.open.synthetic_data(choice, train=19, val=8)
        return whole(choice, parts)

    whole = detector.data.open.open_data
    monkeypatch.setattr(detector.data.open, "open_data", few)
    monkeypatch.setattr(detector.data.open, "SyntheticImages", helpers.scenes_drawn_once())


@pytest.fixture
def tiny_study(tmp_path, few_images, quick_databases):
    """Study "tiny" in tmp_path/runs, for what comes after a search: trial 0 is the baseline, 1 the
    best, 2 infeasible; tiny detectors, and few images."""
    import helpers

    from detector.config.detector import arch_hash
    from detector.config.recipe import DataChoice, Evaluation, Optimizer, Recipe
    from detector.data.open import open_data
    from nas.study.storage import Study
    from trials.objective import Objective
    from trials.record import Cost, EpochResult, Status, TrialRecord
    from trials.stored import Manifest

    choice = DataChoice(path="synthetic", holdout=0.4)
    recipe = Recipe(
        epochs=2,
        size=64,
        batch_size=4,
        evaluation=Evaluation(size=96),
        optimizer=Optimizer(lr=0.02, weight_decay=1e-4),
    )

    def trial(number: int, width: int, accuracy: float, **changes) -> TrialRecord:
        design = helpers.study_detector(width)
        cost = Cost.of(design)
        ap = dict.fromkeys(("easy", "medium", "hard"), accuracy)
        return TrialRecord(
            number=number,
            status=Status.COMPLETED,
            design=arch_hash(design),
            detector=design,
            recipe=recipe,
            params={},
            cost=cost,
            speed_score=Objective().speed_score(cost),
            started=1.0,
            ended=2.0,
            epochs=(EpochResult(epoch=2, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=ap),),
        ).evolve(**changes)

    study = Study.create(
        tmp_path / "runs",
        "tiny",
        Manifest(
            name="tiny",
            space="quick",
            created=1.0,
            data=choice,
            data_name="synthetic",
            data_fingerprint=open_data(choice).fingerprint,
            objective=Objective(),
        ),
    )
    (study.folder / "space.yaml").write_text("name: quick\n")
    study.add(trial(0, 12, 0.5), {})
    study.add(trial(1, 8, 0.6), {})
    study.add(trial(2, 16, 0.0, status=Status.INFEASIBLE, epochs=(), reason="too many"), {})
    return study


@functools.cache
def _random_proposals(seed: int) -> tuple:
    """The flagship space, a source of random choices in it, and an empty list of proposals."""
    from nas.search_space.random_trial import RandomTrial
    from nas.search_space.space import SPACES, SearchSpace

    return SearchSpace.load(SPACES / "retina.yaml"), RandomTrial(str(seed)), []


def _random_proposal(seed: int, number: int):
    from nas.engine.gate import evaluate_cost

    space, trial, proposals = _random_proposals(seed)
    while len(proposals) <= number:
        proposals.append(evaluate_cost(space, space.suggest(trial)))
    return proposals[number]


@pytest.fixture
def generated_study(tmp_path, quick_databases):
    """Function: name, number of trials → folder of a study whose records are made up.

    The designs are drawn from the flagship space; accuracy follows the cost, some of the choices
    and chance, and rises from rung to rung, so what an analysis finds can be told beforehand.
    Written past Optuna's own calls, which take 10 ms a trial.
    """

    def generate(name: str, trials: int, *, seed: int = 0, change=lambda record: record):
        import sqlite3

        import numpy as np
        import optuna

        from detector.config.recipe import DataChoice
        from trials.objective import Objective
        from trials.record import RECORD_ATTRIBUTE, Cost, EpochResult, Status, TrialRecord
        from trials.stored import Manifest

        rng = np.random.default_rng(seed)
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        Manifest(
            name=name,
            space="retina",
            created=1.0 + seed,
            trials=trials,
            data=DataChoice(),
            data_name="generated",
            data_fingerprint="0" * 12,
            objective=Objective(),
        ).write(folder / "study.json")
        records = []
        for number in range(trials):
            found = _random_proposal(seed, number % 300)
            legal = found.violation is None
            params, macs = (found.cost.params, found.cost.macs)
            worth = (
                0.12 * np.log10(macs / 1e8)
                + 0.1 * (found.params["context.kind"] == "ssh")
                + rng.normal(0, 0.025)
            )
            chosen = bool(legal and (number == 0 or rng.random() < 1 / 3))
            epochs = [
                EpochResult(
                    epoch=epoch,
                    losses={"total": 9.0 / epoch, "class": 4.0 / epoch},
                    lr=0.01,
                    seconds=float(10 * macs / 1e9),
                    ap={
                        level: float(np.clip(share * worth + shift + rng.normal(0, 0.01), 0, 1))
                        for level, shift in (("easy", 0.15), ("medium", 0.1), ("hard", 0.03))
                    }
                    if epoch in (3, 7)
                    else None,
                )
                for epoch, share in ((1, 0), (2, 0), (3, 0.5), (4, 0), (5, 0), (6, 0), (7, 1))
            ]
            epochs = epochs[: 7 if chosen else 3] if legal else []
            records.append(
                change(
                    TrialRecord(
                        number=number,
                        design=f"{number:012x}",
                        detector=found.detector,
                        status=(Status.COMPLETED if chosen else Status.PRUNED)
                        if legal
                        else Status.INFEASIBLE,
                        recipe=found.recipe,
                        params=found.params if number else {},
                        cost=Cost(params=params, macs=macs),
                        epochs=tuple(epochs),
                        rung=len(epochs) // 3 - 1,
                        speed_score=Objective().speed_score(found.cost),
                        reason=found.violation,
                        source="sampled" if number else "baseline",
                        started=10.0 * number,
                        ended=10.0 * number + 15.0,
                    )
                )
            )
        path = folder / "study.db"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        optuna.create_study(study_name=name, storage=f"sqlite:///{path}", direction="maximize")
        with sqlite3.connect(path) as storage:
            storage.executemany(
                "insert into trials (trial_id, number, study_id, state) "
                "values (?, ?, 1, 'COMPLETE')",
                [(r.number + 1, r.number) for r in records],
            )
            storage.executemany(
                "insert into trial_system_attributes (trial_id, key, value_json) values (?, ?, ?)",
                [
                    (r.number + 1, RECORD_ATTRIBUTE, json.dumps(json.dumps(r.to_dict())))
                    for r in records
                ],
            )
        storage.close()
        return folder

    return generate
