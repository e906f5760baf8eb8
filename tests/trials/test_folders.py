"""Which studies a folder holds, also if it cannot be read."""

import pytest

from detector.base.errors import UserError
from nas.models.model_folder import last_retrained
from trials.folders import MANIFEST, find_study, new_study_name, study_folders


def test_studies_are_folders_with_a_manifest_also_through_links(tmp_path):
    runs = tmp_path / "runs"
    for name in ("b-001", "a-002", "no-study"):
        (runs / name).mkdir(parents=True)
    (runs / "a-002" / MANIFEST).touch()
    (runs / "file").touch()
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / MANIFEST).touch()
    (runs / "linked").symlink_to(tmp_path / "far")
    assert study_folders(runs) == [runs / "a-002", runs / "linked"]
    assert new_study_name(runs, "a") == "a-003" and new_study_name(runs, "c") == "c-001"
    assert study_folders(tmp_path / "missing") == []
    assert new_study_name(tmp_path / "missing", "a") == "a-001"


@pytest.mark.parametrize("where", ["runs", "."])
def test_closed_runs_are_not_called_empty(public_path, closed, where):
    runs = public_path / "all" / "runs"
    (runs / "a-001").mkdir(parents=True)
    (runs / "a-001" / MANIFEST).touch()
    with closed(public_path / "all" / where):
        for use in (
            study_folders,
            last_retrained,
            lambda path: new_study_name(path, "a"),
            lambda path: find_study(path, "a-001"),
        ):
            with pytest.raises(UserError, match=r"(no permission|is closed).*chmod"):
                use(runs)


def test_a_file_in_the_place_of_runs_is_named(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match=r"runs: cannot be read \(Not a directory\)"):
        study_folders(tmp_path / "runs")
