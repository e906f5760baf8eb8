"""The GPU report as a page, docs/gpu.md."""

from __future__ import annotations

from gpu_bench import STOPPED

SECTIONS = {
    "tests": ("Tests", "The tests that need a GPU (`make test-gpu`)."),
    "rates": (
        "Rates",
        "A step is a training step on a fixed batch on the GPU, with four faces in each image. A "
        "whole training includes the loader and checkpoints (epochs of 6,400 images, repeated if "
        "there are fewer); an evaluation reads the files. Ours computes in the recipe's precision "
        "(auto: bf16 on such a GPU), the peer in torch's default fp32 (convolutions in TF32 on "
        "such a GPU).",
    ),
    "parity": (
        "The baseline compared with the peer's own training",
        "RetinaFace mobile0.25 on the same images with the peer's recipe, trained at the same "
        "time; AP on the val images. A loss is the mean over an epoch, whose number is in "
        "brackets. The commands are those of the first row.",
    ),
    "search": (
        "A search",
        "Seconds of a full proxy are those of all its epochs, including their evaluations.",
    ),
    "retrain": (
        "Designs of the search and published ones, trained in full",
        "All are trained by the search's recipe on the images without the hold-out, and scored on "
        "the val images. A name such as r017 is the search's trial 17. The commands are those of "
        "the first row; for a preset, replace `--trial N` by `--preset NAME`.",
    ),
}


def page(results: dict) -> str:
    """docs/gpu.md from results.json."""
    machine = results.get("machine", {})
    lines = [
        "# On one GPU",
        "",
        "; ".join(
            f"{key}: {value}" for key, value in machine.items() if key not in ("tiny", "command")
        )
        + ".",
        "",
    ]
    if machine.get("tiny"):
        lines += ["**This was a dry run with tiny sizes: its numbers are meaningless.**", ""]
    lines += [
        "Written by `python tests/benchmarks/gpu_report.py --render` from what",
        "",
        "```sh",
        machine.get("command", ""),
        "```",
        "",
        "measured. Words in capitals stand for paths.",
        "",
    ]
    for part in SECTIONS:
        lines += section(part, results.get(part, {}))
    for title, text in results.get("notes", {}).items():  # added to the file by hand
        lines += [f"## {title}", "", *text, ""]
    return "\n".join(lines).rstrip() + "\n"


def section(part: str, results: dict) -> list[str]:
    """One part of the page."""
    title, text = SECTIONS[part]
    lines = [f"## {title}", "", text, ""]
    if not results:
        return [*lines, "This has not been measured.", ""]
    state = results["state"]
    if state == "running":
        lines += ["The measurement was interrupted here.", ""]
    elif state != "done":
        lines += [
            f"This part was {state}; these are the results until then."
            if state == STOPPED
            else f"This part {'was ' if state.startswith('not') else ''}{state}.",
            "",
        ]
    lines += [f"- {note}" for note in results.get("notes", [])]
    lines += [""] if results.get("notes") else []
    rows = results.get("rows", {})
    lines += table(rows) if rows else []
    if "seconds" in results:
        lines += [
            f"Measured in {results['seconds']:.0f} s on {results['on']}, {results['data']}.",
            "",
        ]
    commands = next(
        filter(None, (entry.get("commands") for entry in (results, *rows.values()))), None
    )
    return [*lines, *(["```sh", *commands, "```", ""] if commands else [])]


COLUMNS = (
    "design",
    "params",
    "G MACs",
    "easy",
    "medium",
    "hard",
    "score",
    "epochs",
    "seconds",
    "images seen",
    "loss",
    "images a second",
    "value",
    "note",
)


def table(rows: dict[str, dict]) -> list[str]:
    """A Markdown table of the rows, with the COLUMNS that any of them has."""
    keys = [key for key in COLUMNS if any(row.get(key) not in (None, "") for row in rows.values())]
    sides = ["---" if key in ("design", "loss", "note") else "--:" for key in keys]
    return [
        f"| | {' | '.join(keys)} |",
        f"|---|{'|'.join(sides)}|",
        *(
            f"| {name} | {' | '.join(cell(row.get(key)) for key in keys)} |"
            for name, row in rows.items()
        ),
        "",
    ]


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.4f}".rstrip("0").rstrip(".")
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
