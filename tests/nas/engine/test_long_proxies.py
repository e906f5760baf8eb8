"""Which proxies a search trains, and that its study stays with them."""

from dataclasses import replace

import helpers
import pytest

from detector.base.errors import UserError
from nas.engine.open_study import choose_proxies, open_study
from nas.engine.options import SearchOptions
from nas.search_space.space import SPACES, SearchSpace
from trials.growth import Growth
from trials.objective import Objective

OPTIONS = SearchOptions(space="tiny")


@pytest.fixture
def space(tmp_path, tiny_space_text):
    """With growth and long proxies of 8 epochs."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"{tiny_space_text}\nobjective: {{growth: {{base: 0.3, per_decade: 1.5}}}}\n"
        "proxy_long: {size: 128, evaluation: {size: 256}}\nrungs_long: [3, 8]\n"
    )
    return SearchSpace.load(path)


@pytest.fixture
def photographs(tmp_path):
    return helpers.photographs(tmp_path, 24, (64, 64))


@pytest.fixture
def start(tmp_path, space, photographs):
    """Function: on GPUs or not, options → the study, started or resumed."""

    def started(on_gpus: bool, **options):
        facts = {"runs_dir": tmp_path / "runs", "study": "one", "data": str(photographs)}
        return open_study(SearchOptions(space="tiny", **facts | options), space, on_gpus)[0]

    return started


@pytest.mark.parametrize(
    "lines, told",
    [
        ("proxy_long: {size: 640}", ":2: proxy_long: proxy_long and rungs_long go together; add"),
        ("rungs_long: [9]", ":2: rungs_long: proxy_long and rungs_long go together; add"),
        ("proxy_long: {epochs: 9}\nrungs_long: [9]", ":2: proxy_long: must be a mapping of the"),
        ("rungs_long: [9]\nproxy_long: {siz: 64}", ":3: proxy_long → siz: unknown key; did you"),
        ("rungs_long: [9, 3]\nproxy_long: {size: 64}", ":2: rungs_long: [9, 3] must be ascending"),
    ],
)
def test_mistakes_name_their_line(tmp_path, tiny_space_text, lines, told):
    path = tmp_path / "tiny.yaml"
    path.write_text(f"{tiny_space_text.strip()}\n{lines}\n")
    first = len(tiny_space_text.strip().splitlines())
    with pytest.raises(UserError) as error:
        SearchSpace.load(path)
    number = int(told[1])
    assert str(error.value).startswith(f"{path}:{first + number - 1}{told[2:]}")


def test_long_ones_change_the_proxy_its_rungs_and_the_growth(space, tiny_data):
    photographs = replace(tiny_data, root=space.path.parent)
    short, long = space.on(photographs), space.on(photographs, "long")
    assert short is space
    assert (long.proxy.epochs, long.proxy.size, long.rungs) == (8, 128, (3, 8))
    assert long.proxy.evaluation == replace(short.proxy.evaluation, size=256)
    assert long.proxy.optimizer == short.proxy.optimizer
    assert (short.objective.growth, long.objective.growth) == (
        Growth(base=0.3, per_decade=1.5),
        None,
    )
    assert long.baseline[1] == long.proxy


@pytest.mark.parametrize(
    "wanted, has_long, drawn, on_gpus, chosen",
    [
        ("auto", True, False, True, "long"),
        ("auto", True, False, False, "short"),
        ("auto", False, False, True, "short"),
        ("auto", True, True, True, "short"),
        ("short", True, False, True, "short"),
        ("long", True, False, False, "long"),
    ],
)
def test_long_ones_are_for_photographs_on_gpus(
    space, tiny_data, wanted, has_long, drawn, on_gpus, chosen
):
    space = space if has_long else replace(space, proxy_long=None)
    data = tiny_data if drawn else replace(tiny_data, root=space.path.parent)
    assert choose_proxies(replace(OPTIONS, proxies=wanted), space, data, on_gpus) == chosen


def test_long_ones_that_are_not_there(space, tiny_data):
    options = replace(OPTIONS, proxies="long")
    with pytest.raises(UserError, match="the built-in scenes have only short ones"):
        choose_proxies(options, space, tiny_data, True)
    photographs = replace(tiny_data, root=space.path.parent)
    with pytest.raises(UserError, match=r"tiny\.yaml has only short ones"):
        choose_proxies(options, replace(space, proxy_long=None), photographs, True)


def test_a_study_stays_with_its_proxies(start, space, capsys):
    study = start(on_gpus=True)
    assert study.manifest.proxies == "long"
    assert study.manifest.objective == Objective()
    out = capsys.readouterr().out
    assert "long proxies: 8 epochs of 128 px crops, compared after 3 (--proxies short: " in out
    assert "growth" not in out
    assert start(on_gpus=False, resume=True).manifest.proxies == "long"
    space.path.write_text(space.path.read_text().replace("size: 128", "size: 96"))
    with pytest.raises(UserError, match="was started with another tiny space"):
        start(on_gpus=True, resume=True)


def test_a_study_of_short_ones_may_lose_the_long_ones(start, space):
    assert start(on_gpus=False).manifest.proxies == "short"
    text = space.path.read_text()
    space.path.write_text(text.replace("rungs_long: [3, 8]", "rungs_long: [9]"))
    assert start(on_gpus=True, resume=True).manifest.proxies == "short"


@pytest.mark.parametrize("name", ["retina", "mobile", "scrfd"])
def test_shipped_spaces_have_long_ones_close_to_full_trainings(name):
    space = SearchSpace.load(SPACES / f"{name}.yaml")
    assert space.proxy_long is not None
    assert (space.proxy_long.size, space.rungs_long[-1]) == (640, space.proxy_long.epochs)
    assert space.proxy_long.loss == space.proxy.loss
