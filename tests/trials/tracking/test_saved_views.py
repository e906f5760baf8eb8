"""Views that MLflow's pages offer by name."""

import json

from trials.tracking.saved_views import SEARCHES, TRIALS, runs_page, saved_views

MAX_TAG = 5000
"""Characters of an experiment's tag, MLflow's limit."""


def test_each_view_is_a_tag_that_mlflow_takes():
    tags = saved_views()
    assert list(tags) == [f"mlflow.sharedViewState.{key}" for key in (SEARCHES, TRIALS)]
    for value in tags.values():
        assert len(value) <= MAX_TAG
        view = json.loads(value)
        assert isinstance(view["createdAt"], int)
        state = json.loads(view["state"])
        sections = {section["uuid"] for section in state["compareRunSections"]}
        charts = state["compareRunCharts"]
        assert {chart["metricSectionId"] for chart in charts} == sections
        assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_a_page_opens_a_view_with_its_charts():
    page = runs_page("http://127.0.0.1:5000/", "3", TRIALS)
    start, query = page.split("?")
    assert start == "http://127.0.0.1:5000/#/experiments/3/runs"
    assert dict(part.split("=") for part in query.split("&")) == {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "viewStateShareKey": TRIALS,
    }
