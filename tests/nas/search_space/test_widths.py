"""Channels of the backbone: a list of all, and multipliers by level."""

import pytest

from detector.base.errors import UserError
from nas.search_space.space import SearchSpace

SPACE = """
name: widths
baseline: yunet_s
dimensions:
  row: {choice: {a: {backbone.widths: %s}, b: {backbone.widths: [8, 24, 40, 64, 64, 64]}}}
  all:
    choice:
      s: {backbone.width3: 0.5, backbone.width4: 0.5, backbone.width5: 0.5, neck.width: 32}
      m: {neck.width: 64}
proxy: {}
rungs: [1]
"""


def load(tmp_path, widths):
    path = tmp_path / "widths.yaml"
    path.write_text(SPACE % widths)
    return SearchSpace.load(path)


def test_multipliers_of_levels_multiply_a_list_of_channels(tmp_path):
    space = load(tmp_path, "[16, 16, 48, 64, 64, 64]")

    def widths(**params):
        return space.resolve(params)[0].backbone.widths

    assert widths(row="a", all="m") == (16, 16, 48, 64, 64, 64)
    assert widths(row="a", all="s") == (16, 16, 48, 32, 32, 32)
    assert widths(row="b", all="s") == (8, 24, 40, 32, 32, 32)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ("[16, 16, 48, 64, 64]", "has 5 entries; yunet has 6 rows"),
        ("[16, 16, 48, 64, 64, 0]", "backbone.widths: 0 must be"),
        ("[16, 16, 48, 64, 64, wide]", "backbone.widths"),
        ("16", "backbone.widths"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, widths, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, widths)
