"""What Optuna's own tools make of a study: its API, its importances and its plots."""

from dataclasses import replace

import helpers
import optuna
import pytest
from optuna.trial import TrialState

from nas.engine.gate import baseline, evaluate_cost
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult, Status

STARTED = 1e9
pytestmark = pytest.mark.filterwarnings("ignore:Some regimes for parameter")  # so few trials


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The records of a made-up search: trial 0 is the baseline, every fourth design is infeasible,
    and of the others every second one is pruned at epoch 3."""
    space = SearchSpace.load(SPACES / "quick.yaml")
    study = Study.create(tmp_path_factory.mktemp("optuna"), "s", helpers.manifest())
    draw = RandomTrial("0")
    for number in range(16):
        params = space.suggest(draw) if number else {}
        proposal = evaluate_cost(space, params) if number else baseline(space)
        record = proposal.record(number, space.objective)
        record = record.evolve(started=STARTED + 100 * number)
        if number % 4 == 3:
            refused = record.evolve(
                status=Status.INFEASIBLE, reason="too many", ended=record.started
            )
            study.add_infeasible([refused], [space.distributions(params)])
            continue
        study.add(record, space.distributions(params))
        epochs = tuple(
            EpochResult(
                epoch=epoch,
                losses={},
                lr=0.1,
                seconds=10.0,
                ap=helpers.equal_ap(0.1 * epoch * (1 + number % 5) / 5),
                ended=record.started + 10 * epoch,
            )
            for epoch in ((3, 7) if number % 2 == 0 else (3,))
        )
        record = record.evolve(status=Status.PAUSED, epochs=epochs)
        study.put(record)
        if number % 2 == 0:
            study.put(record.trained_in_full(record.started + 70))
        else:
            ended = replace(record, status=Status.PRUNED, ended=STARTED + 1e6, reason="not best")
            study.put(ended)
    return study


@pytest.fixture(scope="module")
def study(searched):
    """As a user loads it: the only study in the file."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{searched.folder}/study.db")


def test_each_design_is_a_trial_with_its_number_and_parameters(searched, study):
    trials = study.get_trials()
    assert [trial.number for trial in trials] == [r.number for r in searched.records]
    for trial, record in zip(trials, searched.records, strict=True):
        assert trial.params == pytest.approx(record.params)
        assert trial.user_attrs["trial"] == record.number
        assert trial.user_attrs["status"] == record.status
        assert trial.user_attrs["macs"] == record.cost.macs
        assert trial.user_attrs.get("reason") == record.reason
    counts = {state: sum(t.state is state for t in trials) for state in TrialState}
    assert counts[TrialState.COMPLETE] == 8
    assert counts[TrialState.PRUNED] == counts[TrialState.FAIL] == 4


def test_the_best_trial_is_the_searchs(searched, study):
    best = max((r for r in searched.records if r.score is not None), key=lambda r: r.score)
    assert (study.best_trial.number, study.best_value) == (best.number, best.score)
    assert study.best_trial.params == pytest.approx(best.params)


def test_the_table_has_values_parameters_attributes_and_times(searched, study):
    table = study.trials_dataframe().set_index("number")
    names = {name.removeprefix("params_") for name in table if name.startswith("params_")}
    assert names == set(searched.records[1].params)
    refused = table[table.user_attrs_status == "infeasible"]
    assert list(refused.index) == [3, 7, 11, 15]
    assert refused["params_backbone.width"].notna().all()
    assert refused.user_attrs_reason.eq("too many").all()
    seconds = table.duration.dt.total_seconds()
    assert set(seconds[table.state == "PRUNED"]) == {30.0}  # not until the end of the search
    assert set(seconds[table.state == "COMPLETE"]) == {70.0}
    assert set(seconds[table.state == "FAIL"]) == {0.0}


def test_importances_are_of_the_searchs_dimensions(searched, study):
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) <= set(searched.records[1].params)
    assert importances and all(share >= 0 for share in importances.values())


@pytest.mark.parametrize(
    "plot",
    [
        "optimization_history",
        "intermediate_values",
        "slice",
        "parallel_coordinate",
        "param_importances",
        "edf",
        "timeline",
    ],
)
def test_plots_are_drawn(study, plot):
    figure = getattr(optuna.visualization, f"plot_{plot}")(study)
    assert figure.data
    if plot == "intermediate_values":  # a curve for each trained trial
        assert len(figure.data) == 12
