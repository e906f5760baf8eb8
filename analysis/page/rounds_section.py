"""The section about the rounds after a search: designs trained longer and longer."""

from __future__ import annotations

from analysis.page.page import Page
from analysis.records.studies import StudyData
from trials.names import describe
from trials.stored import RoundsFile


def rounds_section(page: Page, study: StudyData, rounds: RoundsFile, suffix: str) -> None:
    page.section(f"Rounds{suffix}")
    by_number = {str(record.number): record for record in study.records}
    beats = rounds.probability_beats_baseline
    page.text(
        f"Trial {rounds.best} has the best score of the full trainings. It is the best of all "
        f"completed trials with probability {_percent(rounds.probability_of_best)}"
        + ("" if beats is None else f", and better than the baseline with {_percent(beats)}")
        + ", by a model of how accuracy changes from round to round. Mean AP on the hold-out; of "
        "proxies at their size, else at original size:"
    )
    trained = {number for one in rounds.rounds for number in one.accuracy}
    order = sorted(trained, key=lambda number: (-rounds.scores.get(number, -1e9), int(number)))
    page.table(
        [
            "trial",
            "design",
            "proxy",
            *(f"{one.epochs} epochs, {one.size} px" for one in rounds.rounds),
            "score",
        ],
        [
            [
                number,
                describe(by_number[number].detector),
                _shown(by_number[number].accuracy_score),
                *(_shown(one.accuracy.get(number)) for one in rounds.rounds),
                f"{rounds.scores[number]:.3f}" if number in rounds.scores else "–",
            ]
            for number in order
            if number in by_number
        ],
        left=(0, 1),
        wide=(1,),
    )


def _percent(probability: float) -> str:
    return "over 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
