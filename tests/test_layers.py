"""The layers of the code, its map, what imports nothing heavy, and the size of files: read from
the sources."""

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
MAY_IMPORT_RAY = {
    "trials/compute/trainable.py",
    "trials/compute/cluster.py",
    "trials/compute/local_ray.py",
    "trials/compute/distributed.py",
}
# Packages of others that a package of ours must not know.
FOREIGN_TO = {
    "detector": {"ray", "optuna", "mlflow"},
    "trials": {"optuna"},
    "analysis": {"torch", "torchvision", "ray", "mlflow", "thop", "cv2"},
}
LIGHT = (
    "detector.base.cli",
    "detector.config.detector",
    "detector.config.presets",
    "detector.cost",
    "detector.config.recipe",
    "detector.architecture.plan",
    "detector.architecture.cost",
    "detector.inference.preset_table",
    "trials.record",
    "trials.objective",
    "trials.constraints",
    "trials.names",
    "trials.folders",
    "trials.compute.resources",
    "trials.tracking.tracker",
    "nas.space",
    "nas.search_space.space",
    "nas.terminal.cli",
    "nas.terminal.tta_flags",
    "nas.api",
    "nas.search",
    "nas.retrain",
    "nas.evaluate",
    "nas.export",
    "nas.entry",
    "nas.detect",
    "nas.models.competition_rules",
    "nas.rescore",
    "nas.sync",
    "nas.ui",
    "nas.tracking.runs",
    "nas.replay",
    "nas.ladder",
    "analysis.records.load",
    "analysis.statistics.front",
    "analysis.statistics.pareto",
    "analysis.statistics.progress",
    "analysis.statistics.correlation",
    "analysis.statistics.importance",
    "analysis.records.tables",
    "analysis.figures.png.front",
    "analysis.figures.png.search",
    "analysis.figures.charts.front",
    "analysis.figures.charts.search",
    "analysis.records.studies",
    "analysis.page.network_diagram",
    "analysis.page.report_page",
    "analysis.report",
    "analysis.choose",
    "analysis.watch",
    "analysis.statistics.replays",
    "analysis.figures.png.replays",
)
HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "thop",
    "cv2",
    "matplotlib",
    "plotly",
    "pandas",
    "sklearn",
    "scipy",
)


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


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_no_file_is_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_light_modules_import_nothing_heavy():
    """In a fresh interpreter, so that what a module pulls in by others counts, too."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1].split(','):\n"
        "    importlib.import_module(name)\n"
        "    loaded = [m for m in sys.argv[2].split(',') if m in sys.modules]\n"
        "    assert not loaded, f'{name} imports {loaded}'\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, ",".join(LIGHT), ",".join(HEAVY)], cwd=ROOT, check=True
    )


def module_of(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in SOURCES}


def dependencies(path: Path) -> set[str]:
    """Modules of ours that a file imports; a package's folder alone is none."""
    found = {name for name in imported(path) if name in MODULES}
    return {name for name in found if MODULES[name].name != "__init__.py"} - {module_of(path)}


# What analysis may know of the layers below it: how records are called, stored and asked for.
VOCABULARY = (
    "trials.record",
    "trials.growth",
    "trials.stored",
    "trials.names",
    "trials.folders",
    "trials.hints",
    "trials.plugins",
    "detector.base.cli",
    "detector.base.errors",
    "detector.base.files",
    "detector.base.json_file",
    "detector.base.output",
)


def test_analysis_knows_of_the_other_layers_only_the_vocabulary():
    for path in (p for p in SOURCES if relative(p).startswith("analysis/")):
        others = {name for name in dependencies(path) if not name.startswith("analysis.")}
        assert others <= set(VOCABULARY), relative(path)


def folder_of(path: Path) -> str:
    """Package and topic, as in detector/data; folders below belong to their topic."""
    return "/".join(relative(path).split("/")[:-1][:2])


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two and more that lead to each other."""

    def reached(start: str) -> set[str]:
        seen, ahead = set(), [start]
        while ahead:
            for name in arrows.get(ahead.pop(), set()) - seen:
                seen.add(name)
                ahead.append(name)
        return seen

    reach = {name: reached(name) for name in arrows}
    groups = {
        tuple(sorted(other for other in found | {name} if name in reach.get(other, ())))
        for name, found in reach.items()
        if name in found
    }
    return [list(group) for group in sorted(groups)]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_circle_of_files():
    assert circles({module_of(path): dependencies(path) for path in SOURCES}) == []


def test_no_circle_of_folders():
    arrows: dict[str, set[str]] = {}
    for path in SOURCES:
        others = {folder_of(MODULES[name]) for name in dependencies(path)} - {folder_of(path)}
        arrows[folder_of(path)] = arrows.get(folder_of(path), set()) | others
    assert circles(arrows) == []


@pytest.mark.parametrize("package", ["nas", "detector", "analysis"])
def test_a_file_directly_in_a_package_is_a_command(package):
    for path in (ROOT / package).glob("*.py"):
        if relative(path) != "nas/api.py" and path.name != "__init__.py":
            assert 'if __name__ == "__main__":' in path.read_text(), relative(path)


def test_every_folder_says_what_belongs_in_it():
    for folder in {path.parent for path in SOURCES}:
        tree = ast.parse((folder / "__init__.py").read_text())
        assert ast.get_docstring(tree), relative(folder)
        assert len(tree.body) == 1, f"{relative(folder)}/__init__.py has more than its docstring"


def listed_in(page: str) -> set[str]:
    """Paths in the map of a page: its first block of text, indented by folder."""
    block = (ROOT / page).read_text().split("```text\n", 1)[1].split("```", 1)[0]
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
    missing = {path for path in listed if not (ROOT / path).exists()}
    assert not missing, f"{page}: its map names {sorted(missing)}, which are not there"
    return listed


def test_map_of_folders_in_the_readme_is_the_tree():
    folders = {f"{relative(path.parent)}/" for path in SOURCES}
    assert folders - listed_in("README.md") == set()


def test_map_of_files_in_the_docs_is_the_tree():
    files = {relative(path) for path in SOURCES if path.name != "__init__.py"}
    assert files - listed_in("docs/architecture.md") == set()
