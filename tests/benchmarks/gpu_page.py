"""The GPU report as a page, docs/gpu.md."""

from __future__ import annotations

from gpu_bench import STOPPED

SECTIONS = {
    "tests": ("Tests", "The tests that need a GPU (`make test-gpu`)."),
    "rates": (
        "Rates",
        "A step is one of training on a fixed batch on the GPU, with four faces in each "
        "image. A whole training has the loader and checkpoints as well (epochs of 6,400 "
        "images, the same ones again and again), an evaluation reads the files. Ours "
        "computes in the recipe's precision (auto: bf16 on such a GPU), the peer in fp32 as "
        "torch has it (convolutions in TF32 on such a GPU).",
    ),
    "parity": (
        "The baseline beside the peer's own training",
        "RetinaFace mobile0.25 on the same images with the peer's recipe; AP on the val "
        "images. They trained at the same time. A loss is the mean of an epoch, "
        "whose number is in brackets. The commands are those of the first row.",
    ),
    "search": (
        "A search",
        "Seconds of a full proxy are those of all its epochs, with their evaluations.",
    ),
    "retrain": (
        "Designs of the search and published ones in full",
        "All trained by the search's recipe on the images without the hold-out, and scored "
        "on the val images. A name such as r017 is the search's trial 17. The commands are "
        "those of the first row; a preset has `--preset NAME` in place of `--trial N`.",
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
        lines += ["**This was a dry run with tiny sizes: its numbers mean nothing.**", ""]
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
    for title, text in results.get("notes", {}).items():  # written into the file by hand
        lines += [f"## {title}", "", *text, ""]
    return "\n".join(lines).rstrip() + "\n"


def section(part: str, found: dict) -> list[str]:
    """One part of the page."""
    title, text = SECTIONS[part]
    lines = [f"## {title}", "", text, ""]
    if not found:
        return [*lines, "This has not been measured.", ""]
    state = found["state"]
    if state == "running":
        lines += ["The measuring was cut off here.", ""]
    elif state != "done":
        lines += [
            f"This part was {state}; what there is by then stands here."
            if state == STOPPED
            else f"This part {'was ' if state.startswith('not') else ''}{state}.",
            "",
        ]
    lines += [f"- {note}" for note in found.get("notes", [])]
    lines += [""] if found.get("notes") else []
    rows = found.get("rows", {})
    lines += table(rows) if rows else []
    if "seconds" in found:
        lines += [f"Measured in {found['seconds']:.0f} s on {found['on']}, {found['data']}.", ""]
    commands = next(filter(None, (own.get("commands") for own in (found, *rows.values()))), None)
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
    """A Markdown table: a line for each row, those COLUMNS that any of them has."""
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
