"""An MLflow store or server: opening and checking it, one-line errors, logging in few calls."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import posixpath
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from detector.base.errors import UserError, first_line
from detector.base.process import disable_telemetry
from trials.tracking.saved_views import SEARCHES, TRIALS, runs_page, save_views
from trials.tracking.tracker import TrackerUnavailable

REQUEST_TIMEOUT_S = 5
"""Seconds for one request to a server, artifacts aside."""

NO_SPACE = "presets"
"""The experiment of runs that belong to no space."""

MetricPoint = tuple[str, float, float | None, int]
"""Name, value, Unix seconds (None: now) and step of a metric."""

# MLflow's own defaults wait for minutes; the user's settings take precedence.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
disable_telemetry()
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for every trial

_CAUSES = (  # pattern of MLflow's message; what it means and how to fix it
    (
        r"out-of-date database schema \(found version (\w+), but expected (\w+)",
        "is a store of another version of MLflow (schema {0}, here {1}); upgrade an older one "
        "by `mlflow db upgrade {uri}`, use the MLflow that created it, or name another store",
    ),
    (
        r"attempt to write a readonly database",
        "is read-only for this user; name another store, or none",
    ),
    (
        r"file is not a database|database disk image is malformed",
        "is not a readable database; restore the file from a copy, or name another store",
    ),
    (
        r"filesystem tracking backend",
        "MLflow keeps no runs in folders any more; name a database such as sqlite:///mlflow.db, "
        "or a server by http://HOST:PORT",
    ),
    (
        r"table \w+ already exists",
        "is being created by another process; try again in a moment",
    ),
    (
        r"HTTPConnectionPool|HTTPSConnectionPool|Connection refused|timed out",
        "no MLflow server answers there; start it, name another one, or none and later run "
        "python -m nas.sync",
    ),
)


def client(uri: str, experiment: str | None = None):
    """An MLflow client of a store or server, checked. A new SQLite file is created.

    Args:
        experiment: name of the one that will be logged to.

    Raises:
        UserError: it does not answer, is damaged or of another version; or the experiment was
            deleted.
    """
    import mlflow

    for name in ("mlflow", "alembic"):  # they log every table that they create
        logging.getLogger(name).setLevel(logging.ERROR)
    file = sqlite_file(uri)
    try:
        with _folder_lock(file.parent) if file else contextlib.nullcontext():
            mlflow_client = mlflow.MlflowClient(tracking_uri=uri)
            mlflow_client.search_experiments(max_results=1)
            found = mlflow_client.get_experiment_by_name(experiment) if experiment else None
    except Exception as error:  # whatever SQLAlchemy, alembic, requests or MLflow raise
        raise UserError(f"--tracking-uri {uri}: {cause(error, uri)}") from error
    if found is not None and found.lifecycle_stage != "active":
        raise UserError(f"--tracking-uri {uri}: {_deleted(found, uri)}")
    return mlflow_client


def _deleted(experiment, uri: str) -> str:
    """What to do about a deleted experiment: MLflow keeps it, and takes no other of its name."""
    number, quoted = experiment.experiment_id, shlex.quote(uri)
    ways = [f"restore it by `mlflow experiments restore -x {number}`"]
    if not uri.startswith(("http:", "https:")):  # of a server, only its machine knows the store
        ways.append(
            "remove it for good by "
            f"`mlflow gc --backend-store-uri {quoted} --experiment-ids {number}`"
        )
    return (
        f"its experiment {experiment.name} was deleted; set MLFLOW_TRACKING_URI={quoted} and "
        f"{' or '.join(ways)}, or name another store, or none"
    )


def check_store(uri: str, space: str | None) -> None:
    """Check a store or server before the work whose results it shall get. Creates nothing.

    Args:
        uri: may be none.
        space: name of the experiment that gets them; None means NO_SPACE.

    Raises:
        UserError: it cannot be used.
    """
    if uri == "none":
        return
    file = sqlite_file(uri)
    if file is None or file.exists():
        client(uri, space or NO_SPACE)


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for a server or another database.

    Raises:
        UserError: the file cannot be created, or the URI does not say what it seems to.
    """
    if not uri.startswith("sqlite:///"):
        return None
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    if "?" in uri and not url.query:
        raise UserError(f"--tracking-uri {uri}: what follows ? is no part of the path; write %3F")
    if not url.database or url.database == ":memory:":
        return None
    file = Path(url.database).absolute()
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        problem = "read-only for this user" if file.parent.is_dir() else "no folder"
        raise UserError(
            f"--tracking-uri {uri}: {file if file.exists() else file.parent} is {problem}; make or "
            "name another place, or none"
        )
    return file


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Waits for other processes in such a block for the same folder: MLflow itself fails if two of
    them create the tables of one file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def cause(error: Exception, uri: str) -> str:
    """What is wrong with a store, and how to fix it, in one line."""
    for pattern, meaning in _CAUSES:
        if match := re.search(pattern, str(error)):
            return meaning.format(*match.groups(), uri=uri)
    return f"MLflow cannot use it ({first_line(error)}); name another store or server, or none"


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raises `TrackerUnavailable` for the errors of a store that cannot be used at the moment."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        raise TrackerUnavailable(first_line(error)) from error


def experiment_id(store, name: str) -> str:
    """The id of an experiment, which is created if missing; the artifacts of a new one in an SQLite
    file are in the folder mlruns beside that file, wherever the command runs."""
    from mlflow.exceptions import MlflowException

    experiment = store.get_experiment_by_name(name)
    if experiment is None:
        file = sqlite_file(store.tracking_uri)
        location = (file.parent / "mlruns" / quote(name, safe="")).as_uri() if file else None
        try:
            # with this kind, the UI opens with runs and metrics, not with traces of language models
            store.create_experiment(
                name, location, tags={"mlflow.experimentKind": "custom_model_development"}
            )
        except MlflowException:  # another process may have been faster
            if store.get_experiment_by_name(name) is None:
                raise
        experiment = store.get_experiment_by_name(name)
    save_views(store, experiment)
    return experiment.experiment_id


def search_pages(store, server: str) -> dict[str, dict[str, str]]:
    """The pages on which the searches of each space are compared, latest space first.

    Args:
        server: the address at which MLflow shows this store.

    Returns:
        Name of each experiment with a search → {"fronts": address, "trials": address}.
    """
    experiments = store.search_experiments(order_by=["last_update_time DESC"])
    pages = {}
    for experiment in experiments:
        if next(find_runs(store, experiment.experiment_id, {"role": "study"}), None) is not None:
            save_views(store, experiment)  # it may be of an older version
            pages[experiment.name] = {
                name: runs_page(server, experiment.experiment_id, view)
                for name, view in (("fronts", SEARCHES), ("trials", TRIALS))
            }
    return pages


def find_runs(store, experiment: str, tags: Mapping[str, object]) -> Iterator:
    """All runs of an experiment that have these tags, newest first."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    token = None
    while True:
        page = store.search_runs([experiment], query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def log(
    store,
    run: str,
    points: Sequence[MetricPoint] = (),
    *,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> None:
    """Log metrics, tags and params of a run in as few calls as MLflow's limits allow (1,000
    entries, 100 of them params). Logging the same point again changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(name, value, milliseconds(at), step) for name, value, at, step in points]
    run_params = [Param(key, value) for key, value in as_texts(params or {}).items()]
    run_tags = [RunTag(key, value) for key, value in as_texts(tags or {}).items()]
    for call in range(max(1, math.ceil(len(metrics) / 800), math.ceil(len(run_params) / 100))):
        store.log_batch(
            run,
            metrics=metrics[800 * call : 800 * (call + 1)],
            params=run_params[100 * call : 100 * (call + 1)],
            tags=run_tags if call == 0 else [],
        )


def milliseconds(seconds: float | None) -> int:
    """Unix milliseconds of Unix seconds, or of now for None."""
    return int(1000 * (time.time() if seconds is None else seconds))


def as_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Tags and params as MLflow takes them: keys by `key_of`, text of at most 500 characters."""
    return {key_of(key): as_text(value)[:500] for key, value in values.items()}


def as_text(value: object) -> str:
    """A value as MLflow takes it: it refuses bytes of file names that are not UTF-8."""
    return str(value).encode(errors="backslashreplace").decode()


def key_of(name: str) -> str:
    """A name, of a search space's dimension for instance, as the key of a param or tag: the name
    itself, unless MLflow refuses it as a key or as the path of a file. Then the characters at fault
    are underscores, and a hash tells it from similar names."""
    fits = re.fullmatch(r"[\w.\- :/]{1,250}", name)
    if fits and posixpath.normpath(name) == name and not re.match(r"/|\.\.|\.$", name):
        return name
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:6]
    return re.sub(r"^\.|[^\w.\- :]", "_", name)[:200] + f"-{digest}"
