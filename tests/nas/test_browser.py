"""MLflow's UI and the report in a real browser, for two small studies on the built-in data."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # WebGL, for parallel coordinates
    "--window-size=1600,1000",
)
MLFLOW_ERRORS = (
    "ajax-api/2.0/mlflow/users/current",
    "ResizeObserver loop completed with undelivered notifications",
)
"""Errors of MLflow 3.17's UI itself: without accounts there is no current user; charts that are
laid out anew while the page is, which browsers report although the next frame has them."""
SECONDS = 120  # for slow machines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no browser: apt-get install -y chromium chromium-driver"
    ),
]

SEARCH_WITHOUT_RAY = """
import sys
import trials.compute.trainable
from nas import search
from nas.terminal import cli
from trials import record
from trials.run import run_segment

record.MIN_AP = -1.0  # so few steps teach nothing

def run_here(source, shares, **settings):  # one trial after the other
    while True:
        try:
            segment = source.next_segment()
        except StopIteration:
            return
        for report in run_segment(segment):
            source.handle_report(report)

trials.compute.trainable.run_on_ray = run_here
sys.exit(cli.main(search.make_parser(), search.run))
"""


def python(folder: Path, *args: str) -> None:
    process = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def studies(tmp_path_factory, tiny_space_text):
    """A folder with the studies one and two, a report over both, and their MLflow store."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "tiny.yaml").write_text(tiny_space_text)
    (folder / "search_without_ray.py").write_text(SEARCH_WITHOUT_RAY)
    for seed, name in enumerate(("one", "two")):
        python(
            folder,
            "search_without_ray.py",
            "--space",
            "tiny.yaml",
            "--data",
            "synthetic",
            "--fraction",
            "0.2",
            "--trials",
            "4",
            "--study",
            name,
            "--sampler",
            "random",
            "--seed",
            str(seed),
        )
    python(folder, "-m", "analysis.report", "--study", "one", "--study", "two")
    return folder


@pytest.fixture(scope="module")
def server(studies, serve):
    """Address of MLflow's UI on the studies' store."""
    return serve(studies)[1] + "/"


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(SECONDS)
    yield driver
    driver.quit()


def wait_for(browser, text: str, seconds: float = SECONDS) -> None:
    """Wait until the page shows `text`."""
    until = time.time() + seconds
    while text not in browser.find_element("tag name", "body").text:
        assert time.time() < until, f"{text!r} is not on {browser.current_url}"
        time.sleep(0.3)


def errors(browser) -> list[str]:
    """Errors in the browser's console since the last call, except MLFLOW_ERRORS."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
        and not any(text in entry["message"] for text in MLFLOW_ERRORS)
    ]


def screenshot(browser, name: str) -> None:
    """Save a screenshot to the folder that PICTURES names, if any: the source of those in docs/."""
    if os.environ.get("PICTURES"):
        time.sleep(3)  # animations
        browser.save_screenshot(str(Path(os.environ["PICTURES"]) / f"{name}.png"))


def num_charts(browser) -> int:
    """Number of plotly charts on the page that are not empty."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].filter(chart => "
        "chart.querySelector('.main-svg, canvas') && chart.getBoundingClientRect().height > 100)"
        ".length"
    )


def address(path: str, **query) -> str:
    from urllib.parse import quote

    return (
        path
        + ("?" if query else "")
        + "&".join(
            f"{key}={quote(value if isinstance(value, str) else json.dumps(value))}"
            for key, value in query.items()
        )
    )


def test_mlflow_shows_studies_trials_comparison_and_front(studies, server, browser):
    from selenium.webdriver.common.by import By

    from trials.tracking.mlflow_store import client

    store = client(f"sqlite:///{studies}/mlflow.db")
    experiment = store.get_experiment_by_name("tiny").experiment_id
    parents = {
        run.info.run_name: run.info.run_id
        for run in store.search_runs([experiment], "tags.role = 'study'")
    }
    assert set(parents) == {"one", "two"}

    browser.get(server + "#/experiments")
    wait_for(browser, "tiny")
    assert errors(browser) == []

    browser.get(server + address(f"#/experiments/{experiment}/runs"))
    wait_for(browser, "two")
    for close in browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close']"):
        close.click()  # the assistant's panel
    expander = browser.find_elements(
        By.CSS_SELECTOR, "[data-testid='expander-button'], [aria-label='Expand'], .ag-row button"
    )[0]
    expander.click()
    wait_for(browser, "r000 mnv1 w0.25")
    screenshot(browser, "mlflow-runs")
    assert errors(browser) == []

    ids = list(parents.values())
    browser.get(
        server
        + address(
            "#/metric",
            runs=ids,
            metric='"hypervolume"',
            experiments=[experiment],
            plot_metric_keys=["hypervolume"],
            plot_layout={"autosize": True, "xaxis": {}, "yaxis": {}},
            x_axis="step",
            y_axis_scale="linear",
            line_smoothness="1",
            show_point="true",
            deselected_curves=[],
            last_linear_y_axis_range=[],
        )
    )
    wait_for(browser, "hypervolume")
    until = time.time() + SECONDS
    while not (num_charts(browser) and all(name in browser.page_source for name in ("one", "two"))):
        assert time.time() < until
        time.sleep(0.3)
    screenshot(browser, "mlflow-compare")
    assert errors(browser) == []

    browser.get("about:blank")  # otherwise the previous frame remains for a while
    browser.get(
        server + address(f"#/experiments/{experiment}/runs/{parents['one']}/artifacts/report.html")
    )
    until = time.time() + SECONDS
    while not browser.find_elements(By.CSS_SELECTOR, "iframe"):
        assert time.time() < until
        time.sleep(0.3)
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "iframe"))
    wait_for(browser, "Search report: one")
    assert num_charts(browser) >= 1
    browser.switch_to.default_content()
    assert errors(browser) == []


def test_the_printed_page_overlays_the_fronts_and_the_trials_are_two_clicks_away(
    studies, server, browser
):
    from selenium.webdriver.common.by import By

    from trials.tracking.mlflow_store import client, search_pages

    store = client(f"sqlite:///{studies}/mlflow.db")
    browser.get(search_pages(store, server)["tiny"]["fronts"])
    for name in ("one front", "two front", "hypervolume", "pareto_accuracy", "pareto_gmacs"):
        wait_for(browser, name)
    until = time.time() + SECONDS
    while num_charts(browser) < 3:
        assert time.time() < until
        time.sleep(0.3)
    for close in browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close']"):
        close.click()  # the assistant's panel
    assert "r000" not in browser.find_element("tag name", "body").text
    screenshot(browser, "mlflow-fronts")
    for text in ("Searches: Pareto fronts", "Trials: accuracy against MACs"):
        wait_for(browser, text)
        browser.find_elements(By.XPATH, f"//*[text()='{text}']")[0].click()
    wait_for(browser, "r000 mnv1")
    wait_for(browser, "ap_hard")
    screenshot(browser, "mlflow-trials-table")
    assert errors(browser) == []


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("page", ["report.html", "compare-two.html"])
def test_pages_of_a_study_work_offline_and_fit_the_window(studies, browser, page, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    browser.get(f"file://{studies}/runs/one/{page}")
    until = time.time() + SECONDS
    while num_charts(browser) < 4:
        assert time.time() < until
        time.sleep(0.3)
    if page == "report.html":
        screenshot(browser, f"report-{width}")
    # charts may scroll; the page itself must not
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_table_of_a_report_is_sorted_filtered_and_reached_from_dots(generated_study, browser):
    from selenium.webdriver.common.by import By

    from analysis.records.studies import load_study
    from analysis.report import write_page

    folder = generated_study("one", 60)
    study = load_study(folder.parent, "one")
    browser.get(f"file://{write_page([study])}")
    until = time.time() + SECONDS
    while num_charts(browser) < 4:
        assert time.time() < until
        time.sleep(0.3)

    def numbers() -> list[int]:
        return browser.execute_script(
            "return [...document.querySelectorAll('table.rows tbody tr')]"
            ".filter(row => !row.hidden).map(row => +row.cells[0].textContent)"
        )

    def sort(column: str) -> None:
        browser.find_element(By.XPATH, f"//th/button[text()='{column}']").click()

    assert numbers()[0] == study.best_trial.number and len(numbers()) == 60
    sort("trial")
    assert numbers() == list(range(59, -1, -1))
    sort("trial")
    assert numbers() == list(range(60))
    sort("hard")
    hard = {r.number: r.ap["hard"] for r in study.records if r.ap}
    shown = numbers()[: len(hard)]
    assert [round(hard[n], 3) for n in shown] == sorted(
        (round(ap, 3) for ap in hard.values()), reverse=True
    )
    sort("hard")  # those without AP stay at the end
    assert set(numbers()[len(hard) :]) == {r.number for r in study.records} - set(hard)
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("completed ssh")
    wait_for(browser, f"{len(numbers())} of 60 rows")
    assert 0 < len(numbers()) < len(study.completed)

    quoted = "published (click to show)"
    shows = (
        "return [...document.querySelectorAll('.js-plotly-plot')][0].data"
        f".find(trace => trace.name == '{quoted}').visible"
    )
    assert browser.execute_script(shows) == "legendonly"
    front = study.front.front[0].number
    browser.execute_script(
        "document.querySelector('.js-plotly-plot').emit('plotly_click', "
        f"{{points: [{{customdata: {front}}}]}})"
    )
    assert browser.current_url.endswith(f"#t{front}") and len(numbers()) == 60
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
