"""An error in a space is reported in one line: file, line, key, rule, way out."""

import pytest

from detector.base.errors import UserError
from nas.search_space.space import SearchSpace

HEAD = """name: bad
baseline: retinaface_mobile025
rungs: [1, 3]
proxy: {size: 160}
"""
GOOD = HEAD + "dimensions:\n  neck.width: {choice: [16, 32]}\n"


def dimension(*lines):
    return HEAD + "dimensions:\n" + "".join(f"  {line}\n" for line in lines)


CASES = {
    "unknown key": (
        GOOD + "dimension: 3\n",
        ":7: dimension: unknown key; did you mean dimensions?",
    ),
    "missing key": (GOOD.replace("rungs: [1, 3]\n", ""), "rungs: missing key; add it"),
    "not yaml": (GOOD + "eta: [1\n", "not valid YAML"),
    "not a mapping": ("- 1\n", "must be a mapping"),
    "key twice": (
        GOOD + "eta: 3\neta: 4\n",
        ":8: eta: is listed twice, first in line 7; remove one",
    ),
    "unknown preset": (
        GOOD.replace("mobile025", "mobile"),
        ":2: baseline: preset 'retinaface_mobile' is unknown; there are ",
    ),
    "rungs fall": (GOOD.replace("[1, 3]", "[3, 1]"), ":3: rungs: [3, 1] must be ascending"),
    "rungs end early": (
        GOOD.replace("{size: 160}", "{size: 160, epochs: 9}"),
        ":3: rungs: [1, 3] must end at the proxy's epochs, 9",
    ),
    "eta": (GOOD + "eta: 1\n", ":7: eta: 1 must be a number above 1"),
    "promote": (GOOD + "promote: all\n", ":7: promote: 'all' is not one of score, front"),
    "name": (GOOD.replace("name: bad", "name: a/b"), ":1: name: 'a/b' must be letters"),
    "name of a folder in Greek": (GOOD.replace("bad", "ά"), ":1: name: 'ά' must be letters"),
    "name like a flag": (GOOD.replace("bad", "-a"), ":1: name: '-a' must be letters"),
    "long name": (GOOD.replace("bad", "a" * 101), "have at most 100 characters"),
    "infinite eta": (GOOD + "eta: .inf\n", ":7: .inf: must be a finite number"),
    "epochs": (
        GOOD.replace("[1, 3]", "[1, 1000000000000]"),
        ":4: proxy → epochs: 1000000000000 must be at least 1 and at most 1,000,000",
    ),
    "crops": (GOOD.replace("160", "3200000000"), "proxy → size: 3200000000 must be at least 1"),
    "batch": (GOOD.replace("160", "160, batch_size: 1e12"), "batch_size: 1000000000000 must be"),
    "cache": (GOOD.replace("160", "160, cache_size: 0"), "cache_size: 0 must be at least 1"),
    "candidates": (
        GOOD.replace("160", "160, loss: {candidates: 100000}"),
        "proxy → loss → candidates: 100000 must be at most 10,000",
    ),
    "channels": (
        dimension("neck.width: {choice: [16, 1000000000]}"),
        ":6: dimensions → neck.width: 1000000000 does not fit: neck.width: 1000000000 must be at",
    ),
    "blocks": (
        dimension("backbone.depth3: {int: [1, 90000]}"),
        ":6: dimensions → backbone.depth3: 90000 does not fit: backbone.depth3: 90000 blocks; must",
    ),
    "convolutions": (
        dimension("head.layers: {choice: [0, 10000000]}"),
        "head.layers: 10000000 must be at least 0 and at most 1,000",
    ),
    "multiplier": (
        dimension("backbone.width: {choice: [1, 1e300]}"),
        "backbone.width: 1e+300 must be a number above 0 and at most 1,000",
    ),
    "many values": (
        dimension("backbone.depth3: {int: [1, 1000000000]}"),
        "int: [1, 1000000000] has more than 100,000 values; change a bound or give a step",
    ),
    "many steps": (
        dimension("recipe.optimizer.lr: {float: [0.0, 1.0], step: 1e-300}"),
        "has more than 100,000 values; change a bound or the step",
    ),
    "endless steps": (
        dimension("recipe.optimizer.lr: {float: [0.0, 1.0], step: 5e-324}"),
        "step: 5e-324 does not lead from 0.0 to 1.0",
    ),
    "many choices": (
        dimension(f"neck.width: {{choice: {list(range(4, 8008, 4))}}}"),
        "choice: 2,001 values; at most 1,000 are allowed",
    ),
    "many conditions": (
        dimension(
            "context.kind: {choice: [ssh, none]}",
            f"neck.width: {{choice: [16], when: {{context.kind: {['ssh'] * 1001}}}}}",
        ),
        ":7: dimensions → neck.width: when: context.kind has 1,001 values; at most 1,000",
    ),
    "far bounds": (
        dimension("recipe.loss.box_weight: {float: [-1e308, 1e308]}"),
        "are too far apart for the numbers in between",
    ),
    "macs": (GOOD + "budget: {macs: 1e300}\n", "budget → macs: 1e+300 must be a whole number"),
    "proxy key": (
        GOOD.replace("{size: 160}", "\n  optimizer:\n    lrr: 0.1"),
        ":6: proxy → optimizer → lrr: unknown key; did you mean lr?",
    ),
    "proxy value": (GOOD.replace("160", "100"), ":4: proxy → size: 100 must be a multiple of 32"),
    "proxy of the built-in scenes": (
        GOOD + "proxy_synthetic: {epochs: 3}\n",
        ":7: proxy_synthetic: must be a mapping of the proxy's keys",
    ),
    "key of full trainings": (
        GOOD + "full: {crops: 1}\n",
        ":7: full → crops: unknown key",
    ),
    "key of that proxy": (
        GOOD + "proxy_synthetic: {siz: 64}\n",
        ":7: proxy_synthetic → siz: unknown key; did you mean size?",
    ),
    "proxy type": (GOOD.replace("160", "large"), "'large' must be a whole number"),
    "cap": (
        GOOD + "constraints: {max_parms: 5}\n",
        "max_parms: unknown key; did you mean max_params",
    ),
    "anchors of the score": (
        GOOD + "objective: {best: 2e11}\n",
        ":7: objective → best: 2e+11 must be",
    ),
    "metric": (
        GOOD + "objective: {metric: flops}\n",
        "'flops' is not one of macs, latency_ms, params",
    ),
    "expression": (
        GOOD + "objective:\n  score: 2 * accuracy - log10(mac)\n",
        ":8: objective → score: position 22, at 'mac)': mac is unknown; did you mean macs?",
    ),
    "sign of an expression": (
        GOOD + "objective: {score: 1 - accuracy}\n",
        ":7: objective → score: falls from 0.8 to 0.5 where accuracy rises",
    ),
    "unit in an expression": (
        GOOD + "objective: {score: accuracy - macs}\n",
        ":7: objective → score: is -1e+07 with accuracy 0.2, macs 1e+07, and must be within",
    ),
    "a number as expression": (GOOD + "objective: {score: 2}\n", "score: 2 must be text"),
    "no dimensions": (HEAD + "dimensions: []\n", "dimensions: must be a mapping of names"),
    "no choices": (
        dimension("neck.width: {choice: []}"),
        ":6: dimensions → neck.width: choice: [] must be a list with at least one value",
    ),
    "a list as choice": (dimension("neck.levels: {choice: [[3, 4, 5]]}"), "written as P3-P5"),
    "choice twice": (dimension("neck.width: {choice: [16, 16]}"), "16 is listed twice"),
    "two kinds": (dimension("neck.width: {choice: [16], int: [1, 2]}"), "has choice and int"),
    "no kind": (dimension("neck.width: {}"), "has none of choice, int, float"),
    "unknown dimension key": (dimension("neck.width: {choise: [16]}"), "unknown key choise"),
    "bounds": (dimension("neck.width: {int: [32, 16]}"), "32, is above the highest, 16"),
    "not whole": (dimension("neck.width: {int: [16, 32.5]}"), "must be whole numbers; use float"),
    "log of 0": (dimension("recipe.optimizer.lr: {float: [0, 1], log: true}"), "must be above 0"),
    "step": (dimension("neck.width: {int: [16, 30], step: 8}"), "does not lead from 16 to 30"),
    "no such setting": (dimension("neck.widht: {choice: [16]}"), "did you mean neck.width?"),
    "setting of all trials": (
        dimension("recipe.epochs: {choice: [3]}"),
        "must be the same for all trials",
    ),
    "condition on nothing": (
        dimension("neck.width: {choice: [16], when: {backbone.knd: resnet}}"),
        "when: there is no dimension backbone.knd",
    ),
    "condition on a later one": (
        dimension(
            "neck.width: {choice: [16], when: {context.kind: ssh}}", "context.kind: {choice: [ssh]}"
        ),
        "when: context.kind is listed further down; move it above",
    ),
    "condition never met": (
        dimension(
            "context.kind: {choice: [ssh]}",
            "neck.width: {choice: [16], when: {context.kind: none}}",
        ),
        ":7: dimensions → neck.width: when: context.kind is never 'none'",
    ),
    "condition between the steps": (
        dimension(
            "neck.width: {int: [16, 64], step: 16}",
            "head.landmarks: {choice: [true, false], when: {neck.width: 24}}",
        ),
        "when: neck.width is never 24; it is one of 16, 32, 48, 64",
    ),
    "conditions never met together": (
        dimension(
            "neck.width: {choice: [16, 32]}",
            "head.landmarks: {choice: [true, false], when: {neck.width: 16}}",
            "head.shared: {choice: [true], when: {neck.width: 32, head.landmarks: true}}",
        ),
        ":8: dimensions → head.shared: when: never holds, as its conditions, and theirs in turn, "
        "need different values of neck.width",
    ),
    "condition on a continuum": (
        dimension(
            "recipe.optimizer.lr: {float: [0.1, 1]}",
            "neck.width: {choice: [16], when: {recipe.optimizer.lr: 0.5}}",
        ),
        "is continuous",
    ),
    "two dimensions of one setting": (
        dimension("neck.width: {choice: [16]}", "wide: {sets: neck.width, choice: [64]}"),
        "wide: sets neck.width, as neck.width does",
    ),
    "choice breaks a rule": (
        dimension("anchors.name: {choice: [retinaface, huge]}"),
        ":6: dimensions → anchors.name: 'huge' does not fit: anchors.name",
    ),
    "a fraction of blocks": (
        dimension("backbone.depth3: {float: [1, 3]}"),
        ":6: dimensions → backbone.depth3: 1.0 does not fit: backbone.depth3: 1.0 must be a whole",
    ),
    "a word as blocks": (dimension("backbone.depth3: {choice: [a, b]}"), "'a' must be a whole"),
    "a list as kind": (
        dimension("b: {choice: {x: {backbone.kind: [resnet]}}}"),
        ":6: dimensions → b → choice → x: 'x' does not fit: backbone.kind: ['resnet'] is not one",
    ),
    "a list as block": (
        dimension("b: {choice: {x: {backbone.kind: resnet, backbone.block: [x]}}}"),
        "backbone.block: ['x'] is not one of basic, bottleneck",
    ),
    "a list as multiplier": (
        dimension("b: {choice: {x: {backbone.width: [a, b]}}}"),
        "backbone.width: ['a', 'b'] must be a number above 0",
    ),
    "a list in a condition": (
        dimension(
            "neck.width: {int: [16, 64], step: 16}",
            "head.landmarks: {choice: [true, false], when: {neck.width: [[16]]}}",
        ),
        ":7: dimensions → head.landmarks: when: neck.width is never [16]; it is one of 16, 32, 48",
    ),
    "bad levels": (dimension("neck.levels: {choice: [P5-P3]}"), "must be levels among 2–7"),
    "no such level": (
        dimension(
            "backbone.kind: {choice: [resnet]}",
            "backbone.depth1: {int: [1, 2], when: {backbone.kind: resnet}}",
        ),
        "resnet has no blocks at level 1",
    ),
    "a bound that fits the baseline alone": (
        dimension("backbone.kind: {choice: [yunet]}", "backbone.depth2: {int: [1, 300]}"),
        ":7: dimensions → backbone.depth2: 1 does not fit: backbone.depth2: 1 blocks; this level "
        "has 2 rows",
    ),
    "sets and bundles": (
        dimension("head: {sets: head.score, choice: {a: {head.score: softmax}}}"),
        ":6: dimensions → head: sets does not go with a choice of bundles",
    ),
    "no bundles": (dimension("head: {choice: {}}"), "must have at least one bundle"),
    "a bundle without settings": (
        dimension("head: {choice: {a: softmax}}"),
        "choice: a: 'softmax' must be a mapping of settings",
    ),
    "the name of a bundle": (
        dimension("head: {choice: {1: {head.score: softmax}}}"),
        "the name 1 of a bundle must be a word",
    ),
    "no such setting in a bundle": (
        dimension(
            "head:", "  choice:", "    a: {head.score: softmax}", "    b: {head.scor: sigmoid}"
        ),
        ":9: dimensions → head → choice → b → head.scor: there is no setting head.scor; did you "
        "mean head.score?",
    ),
    "a bundle breaks a rule": (
        dimension(
            "head:", "  choice:", "    a: {head.score: softmax}", "    b: {head.score: soft}"
        ),
        ":9: dimensions → head → choice → b: 'b' does not fit: head.score: 'soft' is not one of",
    ),
    "a list outside of a bundle": (
        dimension("backbone.widths: {choice: [16]}"),
        "backbone.widths is a list, which only a bundle can set, such as {choice: {narrow: {",
    ),
    "bundle and dimension": (
        dimension(
            "head: {choice: {a: {head.score: softmax}, b: {head.score: sigmoid, "
            "head.shared: true}}}",
            "head.shared: {choice: [true, false]}",
        ),
        ":7: dimensions → head.shared: sets head.shared, as head does",
    ),
    "budget and width": (
        dimension("backbone.width: {choice: [0.25]}") + "budget: {macs: 1e9}\n",
        ":6: dimensions → backbone.width: backbone.width follows from the budget",
    ),
    "budget and widths": (
        dimension("b: {choice: {x: {backbone.widths: [8, 16, 32, 64, 512]}}}")
        + "budget: {macs: 1e9}\n",
        ":6: dimensions → b → choice → x → backbone.widths: backbone.widths follows from",
    ),
    "budget and middle widths": (
        dimension("b: {choice: {x: {backbone.mid_widths: [8, 8, 8, 8]}}}")
        + "budget: {macs: 1e9}\n",
        "backbone.mid_widths follows from the budget; remove one of them",
    ),
    "budget and a neck without a width": (
        dimension("neck:", "  choice:", "    f: {neck.kind: fpn}", "    n: {neck.kind: none}")
        + "budget: {macs: 1e9}\n",
        ":9: dimensions → neck → choice → n: 'n' does not fit: neck.kind none needs a backbone of "
        "the neck's width",
    ),
    "budget and a baseline without a neck's width": (
        dimension("backbone.depth3: {int: [1, 4]}").replace("retinaface_mobile025", "yunet_s")
        + "budget: {macs: 1e9}\n",
        ":2: baseline: neck.kind tfpn needs a backbone of the neck's width, which follows from the "
        "budget; use another kind, or remove the budget",
    ),
    "budget and draws with the baseline's neck": (
        dimension(
            "context.kind: {choice: [ssh, none]}",
            "neck.kind: {choice: [fpn], when: {context.kind: none}}",
        ).replace("retinaface_mobile025", "yunet_s")
        + "budget: {macs: 1e9}\n",
        ":6: dimensions → context.kind: 'ssh' does not fit: neck.kind tfpn needs a backbone",
    ),
    "budget and cap": (
        GOOD + "budget: {macs: 1e9}\nconstraints: {max_macs: 5}\n",
        ":8: constraints → max_macs: the budget sets it already",
    ),
    "budget": (GOOD + "budget: {macs: -1}\n", ":7: budget → macs: -1 must be greater than 0"),
    "size of the budget": (
        GOOD + "budget: {macs: 1e9, size: [640, 470]}\n",
        ":7: budget → size: [640, 470] must be multiples of 32",
    ),
    "baselines without budget": (
        GOOD.replace("retinaface_mobile025", "[scrfd_0.5g, scrfd_1g]"),
        ":2: baseline: ['scrfd_0.5g', 'scrfd_1g'] must be one preset",
    ),
    "no baseline in the list": (
        GOOD.replace("retinaface_mobile025", "[]") + "budget: {macs: 1e9}\n",
        ":2: baseline: [] must be one preset",
    ),
    "several at once, but not what depends on them": (
        dimension(
            "a: {sets: neck.width, choice: []}",
            "b: {sets: head.width, int: [9, 3]}",
            "c: {sets: head.layers, int: [0, 1], when: {a: 16}}",
        ),
        ":6: dimensions → a: choice: [] must be a list with at least one value; also {path}:7: "
        "dimensions → b: int: the lowest, 9, is above the highest, 3; swap them",
    ),
    "an invalid combination": (
        dimension(
            "context.kind: {choice: [none, ssh]}",
            "neck.width: {int: [16, 18], step: 2, when: {context.kind: none}}",
            "wide: {sets: neck.width, int: [16, 24], when: {context.kind: ssh}}",
        ),
        "must be a multiple of 4 with context.kind ssh; drawn with",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case, tmp_path):
    text, message = CASES[case]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        SearchSpace.load(path)
    line = str(caught.value)
    assert message.replace("{path}", str(path)) in line
    assert line.startswith(str(path))
    assert "\n" not in line


def test_the_good_one_is_good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert SearchSpace.load(path).size() == 2


def test_a_value_need_not_fit_the_baseline(tmp_path):
    """Only a neck that no draw has needs the backbone's 64 channels."""
    path = tmp_path / "wide.yaml"
    path.write_text(
        dimension(
            "neck.kind: {choice: [fpn, pafpn]}", "neck.width: {int: [8, 1024], step: 8}"
        ).replace("retinaface_mobile025", "yunet_s")
    )
    assert SearchSpace.load(path).size() == 2 * 128


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "other.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"good.yaml: no such file; there are other.yaml"):
        SearchSpace.load(tmp_path / "good.yaml")
