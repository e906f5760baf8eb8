"""Named views of an experiment on MLflow's pages: which runs, columns and charts each shows.

MLflow keeps such a view as a tag of the experiment (its pages offer it under the name, and open it
by a link), in a format of its own: https://github.com/mlflow/mlflow, savedViewEnvelope.ts and
runs-charts.types.ts, as of 3.17. A version that does not know it ignores the tag.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

SEARCHES, TRIALS = "retina-nas-searches", "retina-nas-trials"
"""The keys of the two views."""
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Of studies, one after the other: Okabe and Ito (2008), for all kinds of colour vision."""
RUN_COLOR = "mlflow.runColor"
"""The tag by which MLflow's charts colour a run."""
_TAG = "mlflow.sharedViewState."
_EVERYTHING = {
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
}


def saved_views() -> dict[str, str]:
    """The experiment's tags that define both views."""
    searches = _view(
        "Searches: Pareto fronts",
        search="tags.role LIKE 'study%'",  # studies and their fronts
        order_by="attributes.start_time",
        columns=("best_score", "hypervolume", "front_size", "epochs_spent"),
        charts=[
            _line("Pareto fronts", "pareto_accuracy", "pareto_gmacs", log=True),
            _line("hypervolume against trials", "hypervolume"),
            _line("hypervolume against epochs", "hypervolume", "epochs_spent"),
            _line("best score against epochs", "best_score", "epochs_spent"),
        ],
    )
    trials = _view(
        "Trials: accuracy against MACs",
        search="tags.role = 'trial' and tags.status = 'completed'",
        order_by="metrics.`score`",
        columns=("score", "accuracy_score", "ap_hard", "speed_score", "macs", "params"),
        charts=[
            _scatter("accuracy against log10 of MACs", "log10_macs", "accuracy_score"),
            _scatter("score against log10 of MACs", "log10_macs", "score"),
            _line("accuracy against epochs", "accuracy_score"),
        ],
    )
    return {_TAG + SEARCHES: searches, _TAG + TRIALS: trials}


def save_views(store, experiment) -> None:
    """Give an experiment both views, unless it has them as they are."""
    for key, value in saved_views().items():
        if experiment.tags.get(key) != value:
            store.set_experiment_tag(experiment.experiment_id, key, value)


def runs_page(server: str, experiment: str, view: str) -> str:
    """The address of a view.

    Args:
        server: of MLflow, such as "http://127.0.0.1:5000".
        experiment: its id.
        view: SEARCHES or TRIALS.
    """
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        f"&compareRunsMode=CHART&viewStateShareKey={view}"
    )


def _view(
    name: str, search: str, order_by: str, columns: Sequence[str], charts: Sequence[dict]
) -> str:
    section = "main"
    state = _EVERYTHING | {
        "searchFilter": search,
        "orderByKey": order_by,
        "orderByAsc": False,
        "selectedColumns": [f"metrics.`{column}`" for column in columns],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
        "isAccordionReordered": True,
        "compareRunSections": [
            {
                "uuid": section,
                "name": name,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
        ],
        "compareRunCharts": [
            chart | {"uuid": f"chart{number}", "metricSectionId": section}
            for number, chart in enumerate(charts)
        ],
    }
    return json.dumps({"name": name, "createdAt": 0, "state": json.dumps(state)})


def _line(title: str, metric: str, against: str = "", log: bool = False) -> dict:
    """A line of each run: a metric against another one, or against its step. (3.17 shows the
    metric's name in place of the title.)"""
    return {
        "type": "LINE",
        "displayName": title,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "metric" if against else "step",
        "selectedXAxisMetricKey": against,
        "xAxisScaleType": "log" if log else "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "displayPoints": True,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _scatter(title: str, x: str, y: str) -> dict:
    """A point of each run: the last values of two metrics."""
    return {
        "type": "SCATTER",
        "displayName": title,
        "xaxis": {"key": x, "type": "METRIC", "dataAccessKey": x},
        "yaxis": {"key": y, "type": "METRIC", "dataAccessKey": y},
        "runsCountToCompare": 1000,
        "deleted": False,
        "isGenerated": False,
    }
