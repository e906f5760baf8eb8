"""An MLflow store or server: opened and checked, its faults told in one line, runs written to it in
as few calls as its limits allow."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from detector.base.errors import UserError
from trials.tracking.tracker import Away

SECONDS = 5
"""That one request to a server may take, artifacts aside."""

# MLflow's own defaults wait for minutes; set by the user they stay.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for every trial

_CAUSES = (  # what MLflow says, what it means and the way out
    (
        r"out-of-date database schema \(found version (\w+), but expected (\w+)",
        "is a store of another version of MLflow (schema {0}, here {1}); bring an older one up to "
        "date by `mlflow db upgrade {uri}`, use the MLflow that made it, or name another store",
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
        "is being made by another process just now; try again when that has begun",
    ),
    (
        r"HTTPConnectionPool|HTTPSConnectionPool|Connection refused|timed out",
        "no MLflow server answers there; start it, name another one, or none and later run "
        "python -m nas.sync",
    ),
)


def client(uri: str):
    """An MLflow client of a store or server, checked.

    Raises:
        UserError: it does not answer, is damaged or of another version.
    """
    import mlflow

    for name in ("mlflow", "alembic"):  # they tell every table they make
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        made = mlflow.MlflowClient(tracking_uri=uri)
        made.search_experiments(max_results=1)
    except Exception as error:  # whatever SQLAlchemy, alembic, requests or MLflow make of it
        raise UserError(f"--tracking-uri {uri}: {cause(error, uri)}") from error
    return made


def cause(error: Exception, uri: str) -> str:
    """What is the matter with a store, and the way out, in one line."""
    for pattern, meaning in _CAUSES:
        if found := re.search(pattern, str(error)):
            return meaning.format(*found.groups(), uri=uri)
    return f"MLflow cannot use it ({_line(error)}); name another store or server, or none"


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Raises `Away` for what a store raises that cannot be used now."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        raise Away(_line(error)) from error


def experiment_id(store, name: str) -> str:
    """The experiment's id; made where it is not there yet."""
    found = store.get_experiment_by_name(name)
    # the kind makes the UI open with runs and metrics, not with traces of language models
    return (
        found.experiment_id
        if found
        else store.create_experiment(
            name, tags={"mlflow.experimentKind": "custom_model_development"}
        )
    )


def find_runs(store, experiment: str, tags: Mapping[str, object]) -> Iterator:
    """All runs of an experiment that have these tags, the latest first."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    token = None
    while True:
        page = store.search_runs([experiment], wanted, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def log(
    store,
    run: str,
    points: Sequence[tuple[str, float, int, float]] = (),
    *,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> None:
    """All of a run in as few calls as MLflow's limits allow (1,000 entries, 100 of them params).

    Args:
        points: (name, value, Unix seconds, step) of each metric. The same one again changes
            nothing.
    """
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(name, value, milliseconds(at), step) for name, value, at, step in points]
    texts = [Param(key, value) for key, value in as_texts(params or {}).items()]
    labels = [RunTag(key, value) for key, value in as_texts(tags or {}).items()]
    for start in range(0, max(len(metrics), 1), 800):
        first = start == 0
        store.log_batch(
            run,
            metrics=metrics[start : start + 800],
            params=texts if first else [],
            tags=labels if first else [],
        )


def milliseconds(seconds: float | None) -> int:
    """Of Unix seconds, of now where there are none."""
    return int(1000 * (time.time() if seconds is None else seconds))


def as_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Tags and params as MLflow takes them."""
    return {key: str(value)[:500] for key, value in values.items()}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
