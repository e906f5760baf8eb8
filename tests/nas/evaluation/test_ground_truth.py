"""Where the official lists are looked for."""

from pathlib import Path

from nas.evaluation.ground_truth import find_official_lists


def test_official_lists_lie_in_the_data_folder_as_here_or_as_in_scrfd(tmp_path):
    assert find_official_lists(None, str(tmp_path)) is None
    assert find_official_lists(None, "synthetic") is None
    (tmp_path / "val" / "gt").mkdir(parents=True)
    assert find_official_lists(None, str(tmp_path)) == tmp_path / "val" / "gt"
    (tmp_path / "ground_truth").mkdir()
    assert find_official_lists(None, str(tmp_path)) == tmp_path / "ground_truth"
    assert find_official_lists(Path("given"), str(tmp_path)) == Path("given")
