"""python -m nas.ladder: how well do the proxies of a search rank designs trained in full?"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from nas.retraining.options import RetrainOptions
from nas.terminal import cli

DESCRIPTION = """\
Train some designs of a study in full, and measure how well its short trainings (proxies) rank them:
Kendall's τ at every look, overall and within families, and which designs the proxy wrongs. The
designs are spread over cost, accuracy and family. A search can only be as good as this ranking.

  python -m nas.ladder --study table --designs 24 --epochs 30 --size 320
  python -m nas.ladder --study other-proxy --ladder runs/table/ladder.json

The second one trains nothing: it compares another study's proxies with the same full trainings.
Finished trainings are kept: the same command resumes a ladder, or adds designs to it. The models
are saved to RUNS_DIR/STUDY/ladder, and what the ladder measured to RUNS_DIR/STUDY/ladder.json."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.ladder", DESCRIPTION)
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--designs",
        metavar="N",
        type=cli.count,
        default=24,
        help="designs to train, the baseline among them (default: 24)",
    )
    what.add_argument(
        "--ladder",
        metavar="FILE",
        type=Path,
        help="train nothing; compare the study with this ladder",
    )
    how = parser.add_argument_group("how to train")
    how.add_argument(
        "--epochs", metavar="N", type=cli.count, default=30, help="number of epochs (default: 30)"
    )
    how.add_argument(
        "--size",
        metavar="PX",
        type=int,
        default=320,
        help="side of the square training crops in px, a multiple of 32 (default: 320)",
    )
    how.add_argument(
        "--recipe",
        metavar="FILE",
        type=Path,
        help="a YAML file with changes to the recipe, or a shipped one by name "
        "(default: no changes)",
    )
    how.add_argument(
        "--jobs",
        metavar="N",
        type=cli.count,
        default=1,
        help="designs to train at the same time, each on its share of the cores (default: 1)",
    )
    cli.add_device_flag(how)
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes: the verdict as plain data."""
    from analysis.records.load import load_records
    from nas.search_space.space import has_growth
    from nas.tabular import ladder
    from trials.folders import find_study, read_manifest, study_or_newest
    from trials.hints import command

    name = study_or_newest(args.runs_dir, args.study)
    folder = find_study(args.runs_dir, name)
    manifest, records = read_manifest(folder), load_records(folder)
    if args.ladder is None:
        path = folder / "ladder.json"
        options = RetrainOptions(
            study=name,
            runs_dir=args.runs_dir,
            epochs=args.epochs,
            size=args.size,
            recipe=args.recipe and str(args.recipe),
            eval_every=0,
            seed=args.seed,
            device=args.device,
        )
        made = {
            "command": command(
                "nas.ladder",
                {name: getattr(args, name) for name in ("study", "designs", "epochs", "size")}
                | {"recipe": args.recipe, "seed": args.seed},
            ),
            "space": manifest.space,
            "data": manifest.data_name,
            "data_fingerprint": manifest.data_fingerprint,
            "versions": manifest.versions,
        }
        rungs: list[ladder.Rung] = []
        chosen = ladder.choose_designs(records, args.designs)
        for rung in ladder.train(chosen, options, args.jobs):
            rungs.append(rung)
            ladder.save(path, made, rungs)
            ladder.progress(len(rungs), len(chosen), rung)
        print(f"saved to {path}")
    else:
        path = args.ladder
    verdict = ladder.judge(ladder.Ladder.load(path), records, manifest.objective)
    drawn = manifest.data.path == "synthetic"
    ladder.print_verdict(verdict, may_grow=has_growth(drawn, manifest.proxies))
    return asdict(verdict)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
