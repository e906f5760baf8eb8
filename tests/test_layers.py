"""The layers of the code, what is light to import, and the size of files: read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("detector", "trials", "nas", "analysis")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Packages of ours that each package may import.
MAY_IMPORT = {
    "detector": {"detector"},
    "trials": {"trials", "detector"},
    "analysis": {"analysis", "trials", "detector"},
    "nas": {"nas", "trials", "detector", "analysis"},
}
MAY_IMPORT_RAY = {"trials/compute/trainable.py", "trials/compute/cluster.py",
                  "trials/compute/distributed.py"}
# Packages of others that a package of ours must not know.
FOREIGN_TO = {
    "detector": {"ray", "optuna", "mlflow"},
    "trials": {"optuna"},
    "analysis": {"torch", "torchvision", "ray", "mlflow", "thop", "cv2"},
}
LIGHT = ("detector.base.cli", "detector.config.detector", "detector.config.presets",
         "detector.cost", "detector.config.recipe", "detector.architecture.plan",
         "detector.architecture.cost", "detector.preset_table", "trials.record",
         "trials.objective", "trials.constraints", "trials.names", "trials.folders",
         "trials.compute.resources", "trials.tracking.tracker", "nas.space",
         "nas.search_space.space", "nas.terminal.cli", "nas.terminal.tta_flags", "nas.search",
         "nas.retrain", "nas.evaluate", "nas.export", "nas.detect",
         "nas.models.competition_rules", "nas.rescore", "nas.sync", "nas.tracking.runs",
         "nas.replay",
         "analysis.load", "analysis.pareto", "analysis.progress", "analysis.correlation",
         "analysis.importance", "analysis.tables", "analysis.figures", "analysis.charts",
         "analysis.studies", "analysis.diagram", "analysis.report", "analysis.choose",
         "analysis.replays", "analysis.replay_figure")
HEAVY = ("torch", "torchvision", "ray", "mlflow", "thop", "cv2", "matplotlib", "plotly", "pandas",
         "sklearn", "scipy")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Dotted names that the file imports anywhere, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_follow_the_layers(path):
    package = relative(path).split("/")[0]
    tops = {name.split(".")[0] for name in imported(path)}
    assert tops & set(PACKAGES) <= MAY_IMPORT[package]
    assert not tops & FOREIGN_TO.get(package, set())
    assert "tests" not in tops
    if relative(path) not in MAY_IMPORT_RAY:
        assert "ray" not in tops


# What analysis may know of the layers below it: how records are called, stored and asked for.
VOCABULARY = ("trials.record", "trials.names", "trials.folders", "detector.base.cli",
              "detector.base.errors")


def test_analysis_knows_of_the_other_layers_only_the_vocabulary():
    for path in (p for p in SOURCES if relative(p).startswith("analysis/")):
        ours = {name for name in imported(path) if name.split(".")[0] in ("trials", "detector")}
        assert all(name.startswith(VOCABULARY) for name in ours
                   if name not in ("trials", "detector")), relative(path)


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_no_file_is_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_light_modules_import_nothing_heavy():
    """In a fresh interpreter, so that what a module pulls in by others counts, too."""
    code = ("import importlib, sys\n"
            "for name in sys.argv[1].split(','):\n"
            "    importlib.import_module(name)\n"
            "    loaded = [m for m in sys.argv[2].split(',') if m in sys.modules]\n"
            "    assert not loaded, f'{name} imports {loaded}'\n")
    subprocess.run([sys.executable, "-c", code, ",".join(LIGHT), ",".join(HEAVY)],
                   cwd=ROOT, check=True)


def test_map_of_folders_in_the_readme_is_the_tree():
    """Each source file of a package stands in the README's map, and nothing that is not there."""
    text = (ROOT / "README.md").read_text()
    block = text.split("```text\n", 1)[1].split("```", 1)[0]
    listed: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        folders = [(depth, name) for depth, name in folders if depth < indent]
        for word in line.split("  #")[0].split():
            path = "".join(name for _, name in folders) + word
            listed.add(path)
            if word.endswith("/"):
                folders.append((indent, word))
    for path in sorted(listed):
        assert (ROOT / path).exists(), f"README's map names {path}, which is not there"
    missing = {relative(p) for p in SOURCES if p.name != "__init__.py"} - listed
    assert not missing, f"README's map lacks {sorted(missing)}"
