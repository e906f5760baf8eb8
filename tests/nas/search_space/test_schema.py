"""The JSON Schemas that editors use: up to date, true of all shipped files, and strict."""

import json
import re
import typing
from dataclasses import dataclass, fields, replace

import jsonschema
import pytest

from detector.base.errors import UserError
from detector.base.struct import Struct
from detector.base.yaml_file import read
from detector.config.detector import Detector
from detector.config.presets import load_design
from detector.config.recipe import Recipe
from detector.config.shipped import SHIPPED
from nas.retraining.candidate import apply_recipe_file
from nas.search_space.mac_budget import Budget
from nas.search_space.random_trial import RandomTrial
from nas.search_space.schema import SCHEMAS, field_docs, schemas
from nas.search_space.space import SearchSpace
from nas.search_space.yaml_parts import KEYS
from nas.space import main
from trials.constraints import Constraints
from trials.objective import Objective

MADE = json.loads(json.dumps(schemas()))
FILES = sorted(SHIPPED.rglob("*.yaml"))


def validate(kind: str, data) -> None:
    jsonschema.Draft7Validator(MADE[kind]).validate(data)


def test_the_shipped_schemas_are_those_of_the_code():
    stored = {p.name: json.loads(p.read_text()) for p in SCHEMAS.iterdir()}
    assert stored == {f"{kind}.schema.json": schema for kind, schema in MADE.items()}, (
        "run python -m nas.space --schema search_spaces/schemas"
    )


@pytest.mark.parametrize("kind", MADE)
def test_they_are_schemas(kind):
    jsonschema.Draft7Validator.check_schema(MADE[kind])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SHIPPED).as_posix())
def test_every_shipped_file_names_its_schema_and_is_valid(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    (named,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", first)
    schema = (path.parent / named).resolve()
    assert schema.parent == SCHEMAS
    validate(schema.name.removesuffix(".schema.json"), read(path).data)


def test_the_command_writes_them(tmp_path, capsys):
    assert main(["--schema", str(tmp_path / "new")]) == 0
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {
        p.name: p.read_text() for p in SCHEMAS.iterdir()
    }
    assert "# yaml-language-server: $schema=space.schema.json" in capsys.readouterr().out
    for words in ([], ["quick", "--schema", str(tmp_path)]):
        assert main(words) == 2
        assert "give a search space, or --schema DIR" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--schema", str(tmp_path / "file" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


HEAD = "name: bad\nbaseline: retinaface_mobile025\nrungs: [1, 3]\nproxy: {size: 160}\n"
GOOD = HEAD + "dimensions:\n  neck.width: {choice: [16, 32]}\n"


def dimension(text: str) -> str:
    return f"{HEAD}dimensions:\n  {text}\n"


GOOD_SPACES = [
    GOOD,
    GOOD + "objective: {score: 2 * accuracy - log10(macs / 1e8)}\nconstraints:\nbudget:\n",
    GOOD + "proxy_long: {size: 640}\nrungs_long: [6, 20]\n",
    GOOD + "eta: 2.5\npromote: front\nproxy_synthetic: {size: 64}\n",
    dimension("activation: {choice: [relu, relu6]}"),
    dimension("neck.levels: {choice: [P3-P5, P4]}"),
    dimension("backbone.width: {float: [0.1, 1], log: true}"),
    dimension("a: {sets: neck.width, int: [16, 64], step: 16}"),
    dimension("head: {choice: {a: {head.score: sigmoid, backbone.widths: [8, 8, 8, 8, 8]}}}"),
    dimension("context.kind: {choice: [none]}\n  neck.width: {int: [8, 9], when: "
              "{context.kind: none}}"),
]  # fmt: skip
WRONG_SPACES = {
    "unknown key": GOOD + "dimension: 3\n",
    "missing key": GOOD.replace("rungs: [1, 3]\n", ""),
    "unknown preset": GOOD.replace("mobile025", "mobile"),
    "rung 0": GOOD.replace("[1, 3]", "[0, 3]"),
    "rung twice": GOOD.replace("[1, 3]", "[3, 3]"),
    "eta": GOOD + "eta: 1\n",
    "promote": GOOD + "promote: all\n",
    "name": GOOD.replace("name: bad", "name: a/b"),
    "long name": GOOD.replace("bad", "a" * 101),
    "key of the proxy": GOOD.replace("160", "160, optimizer: {lrr: 0.1}"),
    "value in the proxy": GOOD.replace("160", "large"),
    "bound in the proxy": GOOD.replace("160", "160, optimizer: {lr: 0}"),
    "share in the proxy": GOOD.replace("160", "160, loss: {match_iou: 1.5}"),
    "word in the proxy": GOOD.replace("160", "160, loss: {assignment: best}"),
    "epochs on the built-in scenes": GOOD + "proxy_synthetic: {epochs: 3}\n",
    "epochs of long proxies": GOOD + "proxy_long: {epochs: 3}\nrungs_long: [3]\n",
    "rung 0 of long proxies": GOOD + "proxy_long: {}\nrungs_long: [0]\n",
    "key of the objective": GOOD + "objective: {metrics: macs}\n",
    "metric": GOOD + "objective: {metric: flops}\n",
    "a number as expression": GOOD + "objective: {score: 2}\n",
    "cap": GOOD + "constraints: {max_parms: 5}\n",
    "cap of 0": GOOD + "constraints: {max_params: 0}\n",
    "budget without MACs": GOOD + "budget: {tolerance: 0.1}\n",
    "no dimensions": HEAD + "dimensions: {}\n",
    "no choices": dimension("neck.width: {choice: []}"),
    "a list as choice": dimension("neck.levels: {choice: [[3, 4, 5]]}"),
    "choice twice": dimension("neck.width: {choice: [16, 16]}"),
    "choice of another kind": dimension("neck.kind: {choice: [fpn, bifpn]}"),
    "choice of another type": dimension("neck.width: {choice: [wide]}"),
    "two kinds": dimension("neck.width: {choice: [16], int: [1, 2]}"),
    "no kind": dimension("neck.width: {}"),
    "key of a dimension": dimension("neck.width: {choise: [16]}"),
    "three bounds": dimension("neck.width: {int: [16, 32, 64]}"),
    "a bound that is not whole": dimension("neck.width: {int: [16, 32.5]}"),
    "unknown setting": dimension("neck.wide: {choice: [16]}"),
    "setting under sets": dimension("a: {sets: neck.wide, choice: [16]}"),
    "shared setting": dimension("recipe.epochs: {choice: [1, 2]}"),
    "list setting": dimension("backbone.widths: {choice: [16]}"),
    "log of a choice": dimension("neck.width: {choice: [16], log: true}"),
    "log and step": dimension("neck.width: {int: [16, 32], log: true, step: 16}"),
    "step of 0": dimension("neck.width: {int: [16, 32], step: 0}"),
    "condition without values": dimension("neck.width: {choice: [16], when: {neck.kind: []}}"),
    "empty bundle": dimension("a: {choice: {b: {}}}"),
    "setting in a bundle": dimension("a: {choice: {b: {neck.wide: 16}}}"),
    "bundles and sets": dimension("a: {choice: {b: {neck.width: 16}}, sets: neck.width}"),
}
WRONG_PRESETS = {
    "no detector": "recipe: {}\n",
    "missing part": "detector: {neck: {levels: [3], width: 8}}\n",
    "unknown part": (SHIPPED / "presets/yunet_n.yaml").read_text().replace("  neck:", "  nek:"),
    "unknown kind": (SHIPPED / "presets/yunet_n.yaml").read_text().replace("tfpn", "bifpn"),
}


@pytest.fixture
def file(tmp_path):
    """Function: text → a file with it."""

    def write(text):
        (tmp_path / "a.yaml").write_text(text)
        return tmp_path / "a.yaml"

    return write


@pytest.mark.parametrize("text", GOOD_SPACES)
def test_what_the_loader_takes_is_valid(file, text):
    SearchSpace.load(file(text))
    validate("space", read(file(text)).data)


@pytest.mark.parametrize("case", WRONG_SPACES)
def test_wrong_spaces_are_refused_by_both(file, case):
    path = file(WRONG_SPACES[case])
    with pytest.raises(UserError):
        SearchSpace.load(path)
    with pytest.raises(jsonschema.ValidationError):
        validate("space", read(path).data)


@pytest.mark.parametrize("case", WRONG_PRESETS)
def test_wrong_presets_are_refused_by_both(file, case):
    path = file(WRONG_PRESETS[case])
    with pytest.raises(UserError):
        load_design(path)
    with pytest.raises(jsonschema.ValidationError):
        validate("preset", read(path).data)


@pytest.mark.parametrize("text", ["recipes: {}", "recipe: {epoch: 3}", "recipe: {norm: group}"])
def test_wrong_recipes_are_refused_by_both(file, text):
    with pytest.raises(UserError):
        apply_recipe_file(Recipe(), file(text))
    with pytest.raises(jsonschema.ValidationError):
        validate("recipe", read(file(text)).data)


def test_the_space_has_all_keys_of_the_loader():
    assert tuple(MADE["space"]["properties"]) == KEYS


@pytest.mark.parametrize("name", ["retina", "scrfd", "table"])
def test_all_designs_of_the_shipped_spaces_are_valid_presets(name):
    space = SearchSpace.load(SHIPPED / f"{name}.yaml")
    trial = RandomTrial("schema")
    for _ in range(30):
        detector, recipe = replace(space, budget=None).resolve(space.suggest(trial))
        validate("preset", {"detector": detector.to_dict(), "recipe": recipe.to_dict()})


FREE_TEXT = {"recipe.weights", "objective.score"}


def test_fields_of_text_have_their_possible_values():
    """They come from the wording of errors: here it shows if one no longer lists them."""

    def leaves(schema, kind, prefix):
        for name, hint in typing.get_type_hints(kind).items():
            one = schema["properties"].get(name)
            if one is None:
                continue
            if isinstance(hint, type) and issubclass(hint, Struct):
                yield from leaves(one, hint, f"{prefix}{name}.")
            elif "string" in one.get("type", ()):
                yield prefix + name, one

    preset, space = MADE["preset"]["properties"], MADE["space"]["properties"]
    found = [
        *leaves(preset["detector"], Detector, "detector."),
        *leaves(preset["recipe"], Recipe, "recipe."),
        *leaves(space["objective"], Objective, "objective."),
        *leaves(space["constraints"], Constraints, "constraints."),
        *leaves(space["budget"], Budget, "budget."),
    ]
    assert {name for name, schema in found if "enum" not in schema} == FREE_TEXT


def test_docstrings_below_fields():
    @dataclass(frozen=True)
    class Example(Struct):
        """Of the class."""

        a: int = 1
        """First line,
        and another."""
        b: int = 2
        c: int = 3
        """Of c."""

    assert field_docs(Example) == {"a": "First line, and another.", "c": "Of c."}
    assert field_docs(Recipe)["size"] == (
        "Side in pixels of the square training crops; a multiple of 32."
    )
    assert set(field_docs(Recipe)) <= {field.name for field in fields(Recipe)}
