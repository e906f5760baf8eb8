"""Writes what a commit's code reads of the studies that it stored; make.sh runs it on that code."""

import json
import sys
from pathlib import Path

import torch

from trials.names import describe

try:
    from detector.export.runtime import load_exported
    from nas.models.model_folder import load_model
    from nas.study.storage import Study
except ImportError:  # where they are at c7cd15c
    from detector.exported import load_exported
    from nas.store import Study

    from nas.models import load_model

RUNS = Path("runs")


def records_of(study: str) -> list[dict]:
    """What a study's records say, and what follows from that."""
    return [
        {
            "number": record.number,
            "status": record.status.value,
            "design": record.design,
            "describe": describe(record.detector),
            "source": record.source,
            "reason": record.reason,
            "params": record.params,
            "cost": record.cost.to_dict(),
            "rung": record.rung,
            "epochs": len(record.epochs),
            "epochs_spent": record.epochs_spent,
            "ap": record.ap,
            "accuracy_score": record.accuracy_score,
            "speed_score": record.speed_score,
            "score": record.score,
        }
        for record in Study.open(RUNS, study).records
    ]


def outputs_of(net) -> dict:
    """What a network answers to a fixed image: shapes and some numbers."""
    image = torch.arange(3 * 64 * 96).mul(37).remainder(256).to(torch.uint8).view(1, 3, 64, 96)
    with torch.inference_mode():
        outputs = net(image)
    return {
        name: {"shape": list(output.shape), "every_95th": output.flatten()[::95].tolist()}
        for name, output in outputs.items()
    }


def model_in(path: Path) -> dict:
    """A file of weights: what it says of itself, and what its network answers."""
    model = load_model(path)
    return {
        "title": model.title,
        "describe": describe(model.config),
        "outputs": outputs_of(model.net),
    }


def main(target: Path) -> None:
    torch.set_num_threads(1)
    told = {
        "records": {path.name: records_of(path.name) for path in sorted(RUNS.iterdir())},
        "models": {str(path): model_in(path) for path in sorted(RUNS.rglob("*.pt"))},
        "exported": {
            str(path): outputs_of(load_exported(path)) for path in sorted(RUNS.rglob("*.onnx"))
        },
        **{
            name: json.loads(Path(f"{name}.json").read_text())
            for name in ("report", "choose", "rescore")
        },
    }
    target.write_text(json.dumps(told, indent=1) + "\n")
    for study, records in told["records"].items():
        states = [f"{record['number']} {record['status']}" for record in records]
        print(f"{study}: {', '.join(states)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
