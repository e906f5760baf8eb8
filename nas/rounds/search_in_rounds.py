"""A search, and the rounds that follow it: designs trained longer and longer, until full trainings
decide on the hold-out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError, disk_full, first_line
from detector.base.files import is_file
from nas.engine.options import SearchOptions
from nas.engine.start_search import start_search
from nas.retraining.candidate import Candidate, choose_candidate, full_recipe, limit_crop_size
from nas.retraining.options import RetrainOptions
from nas.retraining.training import read_whole
from nas.rounds.budgets import Budget, budgets, designs
from trials.hints import command
from trials.names import describe
from trials.record import TrialRecord, learned
from trials.stored import (
    METRICS,
    PROGRESS,
    ROUNDS,
    Metrics,
    ProgressFile,
    Round,
    RoundsFile,
)

if TYPE_CHECKING:
    import numpy as np

    from nas.study.storage import Study

ACCURACY_NOISE = 0.01
"""Standard deviation of an accuracy score between seeds of a full training (docs/training.md)."""
AMONG_BEST = 3
"""A design is promising if it may be among this many best ones."""


def search_in_rounds(options: SearchOptions, dry_run: bool = False) -> dict:
    """Search as `start_search` does; then train the most promising designs in rounds.

    Returns:
        What --json writes.

    Raises:
        UserError, PartialFailure: as `start_search` does; or no design could be trained in full.
    """
    if options.full_recipe is not None:
        from detector.config.shipped import find_file

        find_file(options.full_recipe, "recipe")  # report a missing one before the search
    result = start_search(options, dry_run)
    if dry_run or options.rounds == 1:
        return result
    from nas.engine.run_search import resume_command, resume_hint
    from nas.study.storage import Study

    study = Study.open(options.runs_dir, result["study"])
    trials = options.trials or study.manifest.trials
    with resume_hint(resume_command(options, study.name, trials)), study.writing():
        progress = study.folder / PROGRESS
        ProgressFile(ended=False).write(progress)
        try:
            rounds = Rounds(options, study).run()
        except UserError:  # not if it was stopped: it may be resumed
            ProgressFile(ended=True).write(progress)
            raise
        ProgressFile(ended=True).write(progress)
        return result | {"rounds": rounds}


class Rounds:
    """The rounds of a study after its proxies.

    Args:
        study: has at least one completed trial.
    """

    def __init__(self, options: SearchOptions, study: Study):
        self._options, self._folder, self._manifest = options, study.folder, study.manifest
        path = study.manifest.data.path
        self._data = None if options.data == path else options.data
        """The folder of the images, if it is not where it was when the study was created."""
        self._records = [r for r in learned(study.records) if r.score is not None]
        self._metrics: list[dict[int, Metrics]] = [{}]
        """Of each round the results by trial; the proxies' are in the records."""
        self._budgets = self._plan()

    def run(self) -> dict:
        """Train all rounds, keep the best model, and print the result; returns it as plain data.

        Trainings that have finished are not repeated.
        """
        rounds = len(self._budgets)
        for number in range(2, rounds + 1):
            self._metrics.append({})
            chosen = self._choose(number)
            last = number == rounds
            print(
                f"\nround {number} of {rounds}: {self._budgets[number - 1]}"
                f"{' (full trainings)' if last else ''}, trials "
                f"{', '.join(str(record.number) for record in chosen)}"
            )
            for position, record in enumerate(chosen, 1):
                print(f"\n[round {number}, {position} of {len(chosen)}]")
                self._train(record, number)
            if not self._metrics[-1]:
                raise UserError(
                    f"study {self._folder.name}: no training of round {number} succeeded; see "
                    "the lines above, then run the same command with --resume"
                )
        return self._finish()

    def _plan(self) -> list[Budget]:
        from detector.data.open import open_data

        candidate, options = self._candidate(self._records[0], None)
        full = full_recipe(candidate, options)
        assert candidate.data is not None
        choice = candidate.data if self._data is None else replace(candidate.data, path=self._data)
        labels = open_data(choice).train.labels
        recipe = self._records[0].recipe
        return budgets(
            Budget(recipe.epochs, recipe.size),
            Budget(full.epochs, limit_crop_size(full.size, labels)),
            self._options.rounds,
        )

    def _candidate(
        self, record: TrialRecord, number: int | None
    ) -> tuple[Candidate, RetrainOptions]:
        """A design as a round trains it; None as a full training does, without its budget."""
        options = self._options
        retrain = RetrainOptions(
            study=self._folder.name,
            runs_dir=options.runs_dir,
            trial=record.number,
            data=self._data,
            recipe=options.full_recipe,
            seed=self._manifest.seed,
            device=options.device,
            resume=True,
            tracking_uri=options.tracking_uri,
        )
        candidate = choose_candidate(retrain)
        if number is None:
            return candidate, retrain
        budget = self._budgets[number - 1]
        retrain = replace(retrain, epochs=budget.epochs, size=budget.size)
        if number == len(self._budgets):
            return candidate, retrain
        # In between, only the end of a training is looked at, and MLflow does not need it.
        retrain = replace(retrain, eval_every=0, tracking_uri="none")
        folder = self._folder / "rounds" / budget.name / f"r{record.number:03d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        return replace(candidate, folder=folder), retrain

    def _choose(self, number: int) -> list[TrialRecord]:
        """The designs of a round, the baseline last."""
        from analysis.statistics.fidelities import (
            most_promising,
            shares_of_best,
            shares_of_front,
        )

        accuracy = self._draws()
        costs = [record.cost for record in self._records]
        scores = self._manifest.objective.without_growth.scores(accuracy, costs)
        front = shares_of_front(accuracy, -self._speeds())
        others = [i for i, record in enumerate(self._records) if record.number]
        best = shares_of_best(scores[:, others], AMONG_BEST)
        chosen = most_promising(best, front[others], designs(number, len(self._budgets)))
        baseline = [record for record in self._records if not record.number]
        return [self._records[others[index]] for index in chosen] + baseline

    def _train(self, record: TrialRecord, number: int) -> None:
        """Train a design in a round; one that fails is left out of it."""
        from nas.retraining.retrain import retrain

        candidate, options = self._candidate(record, number)
        try:
            self._metrics[number - 1][record.number] = retrain(candidate, options)
        except UserError as error:
            if disk_full(error):
                raise
            print(f"note: trial {record.number} is left out of this round: {first_line(error)}")

    def _earlier_trainings(self) -> dict[int, Metrics]:
        """Full trainings of an earlier run or of nas.retrain that are like those of the last round,
        by trial. They do not choose who is trained, so that a resumed run chooses the same."""
        like = next(iter(self._metrics[-1].values())).origin
        found = {}
        for record in self._records:
            folder = self._folder / "retrained" / f"r{record.number:03d}"
            if record.number in self._metrics[-1] or not is_file(folder / METRICS):
                continue
            metrics, fault = read_whole(folder)
            if metrics is None:
                print(f"note: a full training is left out: {fault}")
                continue
            origin = replace(metrics.origin, title=like.title, trial=like.trial)
            if metrics.design != record.design or origin.identity != like.identity:
                continue
            candidate, options = self._candidate(record, len(self._budgets))
            if metrics.recipe == full_recipe(candidate, options):
                found[record.number] = replace(metrics, folder=str(folder))
        return found

    def _speeds(self) -> np.ndarray:
        import numpy as np

        return np.array([record.speed_score for record in self._records])

    def _draws(self) -> np.ndarray:
        """What accuracies the designs may have in the last round: float [draws, designs]."""
        import numpy as np

        from analysis.statistics.fidelities import sample_last

        accuracy = np.full((len(self._records), len(self._budgets)), np.nan)
        for row, record in enumerate(self._records):
            accuracy[row, 0] = record.accuracy_score
            for column, metrics in enumerate(self._metrics):
                if record.number in metrics:
                    accuracy[row, column] = metrics[record.number].accuracy_score
        macs = np.array([record.cost.macs for record in self._records], dtype=float)
        return sample_last(
            accuracy,
            macs,
            ACCURACY_NOISE,
            growth=self._manifest.objective.growth,
            seed=self._manifest.seed,
        )

    def _finish(self) -> dict:
        from analysis.statistics.fidelities import shares_of_best
        from nas.models.model_folder import copy_model
        from nas.study.summary import refresh_report

        by_number = {record.number: record for record in self._records}
        last = self._metrics[-1] = self._earlier_trainings() | self._metrics[-1]
        objective = self._manifest.objective

        def score(number: int) -> float:
            metrics = last[number]
            assert metrics.ap is not None, "trained without the hold-out"
            return objective.score_of(metrics.ap, by_number[number].cost)

        best = max(last, key=lambda number: (score(number), -number))
        costs = [record.cost for record in self._records]
        scores = objective.without_growth.scores(self._draws(), costs)
        at = {record.number: index for index, record in enumerate(self._records)}
        file = RoundsFile(
            rounds=tuple(
                Round(
                    epochs=budget.epochs,
                    size=budget.size,
                    accuracy={
                        str(number): metrics.accuracy_score for number, metrics in results.items()
                    },
                )
                for budget, results in zip(self._budgets[1:], self._metrics[1:])
            ),
            best=best,
            scores={str(number): score(number) for number in last},
            probability_of_best=float(shares_of_best(scores)[at[best]]),
            probability_beats_baseline=(
                float((scores[:, at[best]] > scores[:, at[0]]).mean()) if best and 0 in at else None
            ),
        )
        file.write(self._folder / ROUNDS)
        copy_model(Path(last[best].folder), self._folder / "best")
        self._print(file, by_number)
        refresh_report(self._folder)
        flags = {
            "study": self._folder.name,
            "runs_dir": self._options.runs_dir,
            "tracking_uri": self._options.tracking_uri,
        }
        print(f"next:\n  {command('nas.evaluate', flags)}")
        return file.to_dict()

    def _print(self, file: RoundsFile, by_number: dict[int, TrialRecord]) -> None:
        print("\nmean AP on the hold-out, by round:")
        names = [f"{one.epochs}×{one.size}" for one in file.rounds]
        print(f"trial  {'proxy':>7}  {'  '.join(f'{name:>7}' for name in names)}  score")
        order = sorted(file.scores, key=lambda number: -file.scores[number])
        others = {number for one in file.rounds for number in one.accuracy} - set(order)
        for number in [*order, *sorted(others, key=int)]:
            record = by_number[int(number)]
            values = [record.accuracy_score, *(one.accuracy.get(number) for one in file.rounds)]
            shown = "  ".join(f"{'–' if v is None else f'{v:.4f}':>7}" for v in values)
            score = f"{file.scores[number]:.3f}" if number in file.scores else "    –"
            print(f"{number:>5}  {shown}  {score}")
        beats = file.probability_beats_baseline
        print(
            f"best: trial {file.best}, score {file.scores[str(file.best)]:.3f} "
            f"({describe(by_number[file.best].detector)})\n"
            f"  with probability {file.probability_of_best:.2f} the best of all {len(by_number)} "
            "trials"
            + ("" if beats is None else f", with {beats:.2f} better than the baseline")
            + f"\n  copied to {self._folder / 'best'}"
        )
