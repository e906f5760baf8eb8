"""The sections of a report's page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import charts
from analysis.correlation import MIN_PAIRS, score_deviation
from analysis.diagram import network_svg
from analysis.figures import explained
from analysis.front import COSTS, front_data, name_of
from analysis.importance import MIN_TRIALS, feature_table, resolved
from analysis.page import Page
from analysis.pareto import attained, hypervolume_of
from analysis.progress import reach, spending
from analysis.published import QUOTED_NOTE
from analysis.studies import Model, StudyData, measured
from trials.names import describe
from trials.record import TrialRecord

ATTAINED_AT = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # G MACs
MAX_LINES = 600


def report_page(studies: Sequence[StudyData]) -> Page:
    """The whole page of one study, or of several laid over each other."""
    names = ", ".join(study.name for study in studies)
    page = Page(f"Search report: {names}" if len(studies) == 1 else f"Searches compared: {names}")
    _overview(page, studies)
    if len(studies) == 1:
        _front(page, studies[0])
    else:
        _fronts(page, studies)
    _course(page, studies)
    for study in studies:
        tail = "" if len(studies) == 1 else f" · {study.name}"
        _ranks(page, study, tail)
        _importances(page, study, tail)
        _curves(page, study, tail)
        _spending(page, study, tail)
        if study.best is not None:
            _winner(page, study, study.best, tail)
    return page


def baseline_score(study: StudyData) -> float | None:
    baseline = front_data(study.records, study.metric).baseline
    return baseline.score if baseline else None


def curves_of(
    study: StudyData,
    best: int = 6,
    others: int = 60,
) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Trials whose learning curves are shown: the best ones, and some others drawn by chance."""
    ranked = sorted(study.completed, key=lambda r: (-r.score, r.number))
    shown = {r.number for r in ranked[:best]}
    rest = [r for r in study.records if r.epochs and r.number not in shown]
    if len(rest) > others:
        kept = np.random.default_rng(0).choice(len(rest), others, replace=False)
        rest = [rest[index] for index in sorted(kept)]
    return ranked[:best], rest


def _overview(page: Page, studies: Sequence[StudyData]) -> None:
    rows = []
    for study in studies:
        data = front_data(study.records, study.metric)
        rows.append(
            [
                study.name,
                study.manifest.get("space", "?"),
                study.manifest.get("data_name", "?"),
                f"{len(study.completed):,} of {len(study.records):,}",
                f"{sum(r.epochs_spent for r in study.records):,}",
                f"{data.best.score:.3f}",
                name_of(data.best),
                f"{data.baseline.score:.3f}" if data.baseline else "–",
                len(data.front),
                f"{hypervolume_of(study.completed):.4f}",
            ]
        )
    page.table(
        [
            "study",
            "space",
            "data",
            "completed trials",
            "epochs",
            "best score",
            "trial",
            "baseline",
            "on front",
            "hypervolume",
        ],
        rows,
        left=(0, 1, 2),
    )
    for study in studies:
        page.text(
            f"{study.name}: {front_data(study.records, study.metric).caption}. AP on the "
            f"{study.manifest['data'].get('select_on', 'holdout')} at the proxy's size; "
            f"score = speed_score + 2 × accuracy_score, speed by {study.metric}.",
            note=True,
        )
    data = {study.manifest.get("data_fingerprint") for study in studies}
    if len(data) > 1:
        page.text(
            "These studies were not run on the same images, so their numbers are not comparable."
        )


def _front(page: Page, study: StudyData) -> None:
    page.section("Front")
    page.text(
        "Each dot is a trained design, its area tells the parameters; point at it for its "
        "numbers. No design on the front is beaten in both accuracy and cost; dominated ones "
        f"are pale. {QUOTED_NOTE[0].upper()}{QUOTED_NOTE[1:]}, so they are another yardstick "
        "than a proxy trained for a few epochs."
    )
    records = {r.number: r for r in study.records}
    retrained = [
        (records[number], model.metrics)
        for number, model in study.retrained.items()
        if model.metrics.get("accuracy_score") is not None
    ]
    for metric in measured([study]):
        page.heading(f"accuracy against {COSTS[metric][0].split(' (')[0]}")
        page.chart(
            charts.front_chart(study.records, metric=metric, quoted=True, retrained=retrained),
            least=720,
        )
    _front_table(page, study)


def _front_table(page: Page, study: StudyData) -> None:
    deviation, source = score_deviation(study.comparisons)
    data = front_data(study.records, study.metric)
    chosen = sorted(data.front, key=lambda r: -r.score)[:20]
    page.heading(
        "The front's designs, best score first"
        + (f" (20 of {len(data.front)})" if len(data.front) > 20 else "")
    )
    timed = all(r.cost.latency_ms is not None for r in chosen)
    page.table(
        [
            "trial",
            "design",
            "score",
            "easy",
            "medium",
            "hard",
            "G MACs",
            "parameters",
            *(["ms"] if timed else []),
        ],
        [
            [
                name_of(r) + (" (baseline)" if r.number == 0 else ""),
                describe(r.detector),
                f"{r.score:.3f}",
                *(f"{r.ap[level]:.3f}" for level in ("easy", "medium", "hard")),
                f"{r.cost.macs / 1e9:.3f}",
                f"{r.cost.params:,}",
                *([f"{r.cost.latency_ms:.1f}"] if timed else []),
            ]
            for r in chosen
        ],
        left=(0, 1),
    )
    if timed:
        page.text(
            f"ms: latency of one 640×640 image on {chosen[0].cost.machine}, measured in "
            "turns with the baseline.",
            note=True,
        )
    if deviation == deviation:
        page.text(
            f"A score is uncertain by about ±{deviation:.3f} (one standard deviation, from "
            f"how accuracy scatters {source})."
        )


def _fronts(page: Page, studies: Sequence[StudyData]) -> None:
    page.section("Fronts")
    page.text(
        "What each study attained at a cost; its dominated trials are pale. A larger "
        "hypervolume (area under the front of accuracy × speed, in [0, 1]) means a better "
        "front as a whole."
    )
    for metric in measured(studies):
        page.heading(f"accuracy against {COSTS[metric][0].split(' (')[0]}")
        page.chart(
            charts.fronts_chart([(s.name, s.records) for s in studies], metric=metric), least=600
        )
    page.heading("Highest accuracy attained within a number of MACs")
    rows = []
    for study in studies:
        points = np.array([(-r.cost.macs / 1e9, r.accuracy_score) for r in study.completed])
        rows.append(
            [study.name]
            + [
                f"{level:.3f}" if level > -np.inf else "–"
                for level in attained(points, -np.array(ATTAINED_AT))
            ]
        )
    page.table(["study", *(f"{value:g} G" for value in ATTAINED_AT)], rows)


def _course(page: Page, studies: Sequence[StudyData]) -> None:
    page.section("Course")
    page.text(
        "Best score and hypervolume at each completed trial. Epochs are those that all "
        "trials had trained by then, so searches with different schedules can be compared."
    )
    page.chart(
        charts.progress_chart([(s.name, s.progress, baseline_score(s)) for s in studies]), least=760
    )
    goal = min(float(study.progress.best[-1]) for study in studies)
    if len(studies) > 1:
        for study in studies:
            spent = reach(study.progress.best, study.progress.epochs, goal)
            page.text(
                f"{study.name} had score {goal:.3f}, which all of them reached, after "
                f"{spent:,.0f} epochs."
            )


def _ranks(page: Page, study: StudyData, tail: str) -> None:
    page.section(f"Is a low budget worth anything?{tail}")
    if not study.comparisons:
        page.text(
            "All trials were evaluated at one budget only, and none is retrained: nothing "
            "to compare."
        )
    for one in study.comparisons:
        page.heading(f"{one.cheap} → {one.dear}")
        page.text(one.sentence)
        if len(one.x) >= MIN_PAIRS and not np.isnan(one.spearman.value):
            page.chart(charts.ranks_chart(one))
            page.text(
                f"Spearman's ρ {one.spearman.value:.2f}, 95 % interval "
                f"{one.spearman.low:.2f} to {one.spearman.high:.2f}. Only designs that were "
                "trained further have both values; they were picked by the first one, which "
                "makes a correlation look smaller than it is among all.",
                note=True,
            )


def _importances(page: Page, study: StudyData, tail: str) -> None:
    page.section(f"What matters{tail}")
    found = study.importances
    if found is None:
        page.text(
            f"Fewer than {MIN_TRIALS} trials, or none that differ: too few to tell which "
            "choices matter."
        )
    else:
        page.text(
            "For accuracy at a given cost, that is accuracy less what its MACs alone "
            f"foretell: {explained(found)}. Bars: mean over 12 random forests; whiskers: "
            "their middle 80 %. One whose whisker reaches 0 may not matter at all."
        )
        page.chart(charts.importances_chart(found), least=480)
    completed = study.completed
    if len(completed) > 1:
        if len(completed) > MAX_LINES:
            best = sorted(completed, key=lambda r: -r.score)[: MAX_LINES // 2]
            kept = np.random.default_rng(0).choice(len(completed), MAX_LINES // 2, replace=False)
            completed = list({r.number: r for r in best + [completed[i] for i in kept]}.values())
        values, names, texts = feature_table([resolved(r) for r in completed])
        if found is not None:  # the ones that matter, most important first
            order = [names.index(i.feature) for i in found.features if i.feature in names][:9]
        else:
            order = range(min(len(names), 9))
        if order:
            page.heading("Completed trials through their choices")
            page.text(
                "One line a trial, light ones have a high score. Drag along an axis to pick "
                "a range."
                + (
                    ""
                    if len(completed) == len(study.completed)
                    else f" ({len(completed)} of {len(study.completed):,} drawn, the "
                    f"best {MAX_LINES // 2} among them.)"
                )
            )
            page.chart(
                charts.parallel_chart(
                    completed,
                    values[:, list(order)],
                    [names[i] for i in order],
                    [texts[i] for i in order],
                ),
                least=1100,
            )


def _curves(page: Page, study: StudyData, tail: str) -> None:
    page.section(f"Learning curves{tail}")
    shown, pale = curves_of(study)
    page.text(f"The best {len(shown)} by score in colour, {len(pale)} others pale.")
    page.chart(charts.curves_chart(shown, pale), least=760)


def _spending(page: Page, study: StudyData, tail: str) -> None:
    page.section(f"Where the epochs and the time went{tail}")
    rows = spending(study.records)
    page.chart(charts.spending_chart(rows), least=760)
    total = sum(row.seconds for row in rows)
    page.text(
        f"{sum(row.epochs for row in rows):,} epochs, {total / 3600:.1f} hours of training "
        "and evaluation, summed over the workers."
    )


def _winner(page: Page, study: StudyData, model: Model, tail: str) -> None:
    metrics, found = model.metrics, model.evaluation
    page.section(f"The winner{tail}")
    page.text(
        f"{metrics.get('title', 'a retrained model')}: {metrics.get('describe', '')}; "
        f"{metrics.get('params', 0):,} parameters, {metrics.get('macs', 0) / 1e9:.4f} G MACs "
        "at 640×640."
    )
    rows = []
    for name, source in (("hold-out, after the retrain", metrics), ("val images", found or {})):
        if source.get("ap"):
            rows.append(
                [
                    name,
                    *(f"{source['ap'][level]:.4f}" for level in ("easy", "medium", "hard")),
                    f"{source['accuracy_score']:.4f}",
                    f"{source['score']:.4f}" if source.get("score") is not None else "–",
                ]
            )
    if rows:
        page.table(["AP on", "easy", "medium", "hard", "mean", "score"], rows)
    if found is None:
        page.text("Not evaluated on the val images yet:")
        page.code(f"python -m nas.evaluate --study {study.name}")
    else:
        page.heading("Rules of the competition")
        answers = {True: "yes", False: "NO", None: "not known"}
        page.table(
            ["holds", "rule", "evidence"],
            [[answers[rule["holds"]], rule["rule"], rule["evidence"]] for rule in found["rules"]],
            left=(0, 1),
            wide=(2,),
        )
        page.text(
            f"Latency of one 640×640 image: {found['latency_ms']:.1f} ms median "
            f"({found['machine']})."
        )
    if model.network is not None:
        _network(page, model.network)
    if model.examples is not None:
        page.heading("Faces found on built-in scenes")
        page.picture(model.examples, "boxes with a score of at least 0.5; drawn scenes")


def _network(page: Page, network: dict) -> None:
    page.heading(
        f"The network, stage by stage, for an image of {network['input'][1]}×{network['input'][0]}"
    )
    page.drawing(
        network_svg(network),
        "A row is a pyramid level, a box its layers with the size "
        "of their result (height × width × channels); the darker, the larger its share of "
        "the MACs. Dashed: between the neck's levels.",
    )
    page.heading("Its cost, step by step")
    macs = sum(step["macs"] for step in network["steps"]) or 1
    params = sum(step["params"] for step in network["steps"]) or 1
    page.table(
        ["step", "what", "in", "out", "MACs", "share of MACs", "parameters", "share of parameters"],
        [
            [
                step["name"],
                step["what"],
                _shape(step["in"]),
                _shape(step["out"]),
                f"{step['macs'] / 1e6:,.1f} M",
                step["macs"] / macs,
                f"{step['params']:,}",
                step["params"] / params,
            ]
            for step in network["steps"]
        ],
        left=(0, 1),
        bars=(5, 7),
    )
    page.heading("The dearest layers")
    dearest = sorted(network["layers"], key=lambda row: -row[2])[:15]
    page.table(
        ["layer", "MACs", "share of MACs", "parameters"],
        [
            [name, f"{cost / 1e6:,.1f} M", cost / macs, f"{count:,}"]
            for name, count, cost in dearest
        ],
        bars=(2,),
    )


def _shape(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}×{shape[2]}"
