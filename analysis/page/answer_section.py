"""The top of a study's report: which design, how sure, what it costs, and what to do next."""

from __future__ import annotations

import time

from analysis.page.page import Page
from analysis.records.studies import StudyData
from analysis.statistics.choice import Choice
from analysis.statistics.pareto import hypervolume_of
from trials.hints import MAX_TOP, command, retrain_command
from trials.names import describe
from trials.record import LEVELS, TrialRecord

VERSIONS = ("python", "torch", "commit")


def answer_section(page: Page, study: StudyData, running: bool = False) -> None:
    """
    Args:
        running: whether the search goes on, so that it is too early for a next step.
    """
    choice, baseline = study.choice, study.front.baseline
    best = choice.best
    spread = "" if choice.deviation is None else f" ±{choice.deviation:.3f}"
    page.lead(
        f"The baseline, trial 0, has the best score, {best.score:.3f}{spread}: no design beats it"
        f"{' so far' if running else ''}."
        if best.number == 0
        else f"Trial {best.number} has the best score: {best.score:.3f}{spread}."
    )
    page.code(describe(best.detector))
    page.facts(_facts(choice, None if best.number == 0 else baseline))
    verdict = choice.verdict(study.manifest.objective.uses_latency)
    page.text(f"How sure: {verdict}.")
    if baseline is not None and (cause := baseline.why_nothing_learned()):
        page.text(f"The baseline has learned nothing: {cause}.")
    if not running:
        _next_step(page, study, choice)
    page.text(_circumstances(study), note=True)


def _facts(choice: Choice, baseline: TrialRecord | None) -> list[tuple[str, str, str]]:
    """What is known about the best trial, as label, value, and the baseline's value beside it."""
    best, cost = choice.best, choice.best.cost

    def gain(value: float | None, reference: float | None) -> str:
        if value is None or reference is None:
            return ""
        return f"{value - reference:+.3f} against the baseline's {reference:.3f}".replace("-", "−")

    def saving(value: float, reference: float | None, text: str) -> str:
        if not reference:
            return ""
        change = f"{100 * (value / reference - 1):+.0f} %".replace("-", "−")
        return f"{change} against the baseline's {text.format(reference)}"

    if baseline is None:
        score = accuracy = macs = params = latency_ms = None
    else:
        score, accuracy = baseline.score, baseline.accuracy_score
        macs, params = baseline.cost.macs / 1e9, baseline.cost.params / 1e3
        latency_ms = baseline.cost.latency_ms
    in_g, in_k, in_ms = "{:.3f} G", "{:,.1f} k", "{:.1f} ms"
    ap = best.ap or {}
    facts = [
        ("score", f"{best.score:.3f}", gain(best.score, score)),
        (
            "accuracy: mean AP",
            f"{best.accuracy_score:.3f}",
            gain(best.accuracy_score, accuracy),
        ),
        ("AP " + ", ".join(LEVELS), " · ".join(f"{ap[level]:.3f}" for level in LEVELS), ""),
        (
            "MACs at 640×640",
            in_g.format(cost.macs / 1e9),
            saving(cost.macs / 1e9, macs, in_g),
        ),
        (
            "parameters",
            in_k.format(cost.params / 1e3),
            saving(cost.params / 1e3, params, in_k),
        ),
    ]
    if cost.latency_ms is not None:
        facts.append(
            (
                f"latency on {cost.machine}",
                in_ms.format(cost.latency_ms),
                saving(cost.latency_ms, latency_ms, in_ms),
            )
        )
    if choice.probability is not None:
        facts.append(
            (
                "probability that it is the best",
                f"{choice.probability:.0%}".replace("%", " %"),
                f"of {choice.considered:,} completed trials",
            )
        )
    return facts


def _next_step(page: Page, study: StudyData, choice: Choice) -> None:
    """The command that follows, by what has been done with the winner so far."""
    flags = {"study": study.name, "runs_dir": study.folder.parent}
    model = study.best
    title = model and model.metrics.title[:1].upper() + model.metrics.title[1:]
    if model is None:
        if choice.tied > 1:
            count = min(choice.tied, MAX_TOP)
            page.text(f"Next, train the best {count} in full; the hold-out chooses among them:")
            page.code(retrain_command(study.manifest.data.path, {"top": count, **flags}))
        else:
            page.text("Next, train it in full:")
            page.code(retrain_command(study.manifest.data.path, {"best": True, **flags}))
    elif model.evaluation is None:
        page.text(f"{title} has been retrained. Next, evaluate it on the val images:")
        page.code(command("nas.evaluate", flags))
    else:
        score = model.evaluation.get("score")
        page.text(
            f"{title} has been retrained and evaluated on the val images"
            + (f": score {score:.3f}" if score is not None else "")
            + ". Next, export it:"
        )
        page.code(command("nas.export", {**flags, "format": "onnx"}))


def _circumstances(study: StudyData) -> str:
    """What was searched, how, on what, and when."""
    manifest = study.manifest
    epochs = sum(r.epochs_spent for r in study.records)
    images = ", ".join(f"{count:,} {part}" for part, count in manifest.images.items())
    parts = [
        f"{epochs:,} epochs, hypervolume {hypervolume_of(study.completed):.4f}; "
        f"{study.front.caption}",
        f"space {manifest.space}"
        + (", long proxies" if manifest.proxies == "long" else "")
        + f", sampler {manifest.sampler}, seed {manifest.seed}"
        + (f", learnt from {', '.join(manifest.learnt_from)}" if manifest.learnt_from else ""),
        f"data {manifest.data_name} {manifest.data_fingerprint}"
        + (f" ({images})" if images else ""),
        time.strftime("started %Y-%m-%d %H:%M UTC", time.gmtime(manifest.created)),
        ", ".join(
            f"{name} {manifest.versions[name][:12]}"
            for name in VERSIONS
            if name in manifest.versions
        ),
        f"AP on the {manifest.data.select_on} at the proxy's size",
        f"score = {manifest.objective.described}.",
    ]
    return " · ".join(part for part in parts if part)
