"""What the weight of UFLoss does: MoDL trained with several weights and seeds, figure S3 of the paper.

    python fastmri_examples/figures/weight_sweep.py --data_path DATA --feature_net NET --score_feature_net OTHER \\
        --weights 0 0.0067 0.02 0.053 alone --seeds 1 2 3 --output_path OUT -- --max_epochs 50 --num_workers 4

trains each run in OUT/runs/weight_W/seed_S by modl_ufloss/train.py, whose further flags stand after "--"; tests its
best checkpoint, or its last one where nothing was validated, in OUT/tests/weight_W/seed_S, with a feature network
other than the one of the loss; and draws NRMSE, SSIM and UFLoss against the weight, UFLoss against NRMSE (sweep.png,
.pdf), and a slice by all weights (panels.png, .pdf). sweep.json has all numbers. What is done is not done again: the
same command goes on where it was. --mode test takes the runs as they are.

The paper's weights 0, 0.5, 1.5, 4 and "alone" are for a network that was trained with temperature 1. With this
project's temperature of 0.1 a weight of 0.02 is what 1.5 is there, so the defaults are 0, 0.0067, 0.02, 0.053, alone.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line as cli
import figure_slices
import sweep_runs
from sweep_runs import ALONE, TEST_ARGS, UFLOSS_ARGS, Run, digest

from fastmri_ufloss.losses import UFLoss
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.panels import save_panels
from fastmri_ufloss.report.figures.sweep import difference_rows, save_sweep, sweep_rows
from fastmri_ufloss.report.reconstructions import Reconstructions

WEIGHTS = ("0", "0.0067", "0.02", "0.053", "alone")
SEEDS = (1, 2, 3)
REFERENCES = ("coil-combined", "RSS")
# what the sweep itself says to the recipe
OWN = (
    *(
        "--mode",
        "--data_path",
        "--challenge",
        "--loss",
        "--feature_net",
        "--seed",
        "--default_root_dir",
        "--checkpoint",
    ),
    *("--score", "--no-score", "--resume", *(f"--{name}" for name in (*UFLOSS_ARGS, *TEST_ARGS))),
)


class Panels(NamedTuple):
    """A slice by all weights, as `save_panels` takes it but for the scores, which are numbers."""

    reference: tuple[str, np.ndarray]
    images: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]
    title: str


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--mode", choices=("train", "test"), default="train", help="test: of the runs as they are")
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), help=f"(default: {' '.join(WEIGHTS)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="(default: 1 2 3)")
    parser.add_argument("--data_path", type=Path, required=True, help="fastMRI's folder")
    parser.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    parser.add_argument("--feature_net", type=Path, default=None, help="of the loss")
    parser.add_argument("--score_feature_net", type=Path, required=True, help="another one, of the scores")
    parser.add_argument("--output_path", type=Path, required=True, help="folder of runs, tests and figures")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--reference", choices=REFERENCES, default=REFERENCES[0], help="(default: coil-combined)")
    parser.add_argument("--volume", default=None, help="file name of the panels' volume (default: the most textured)")
    parser.add_argument("--slice", type=int, default=None, help="of the panels (default: the most textured)")
    parser.add_argument("--title", default="", help="above the plots")
    cli.add_arguments_of(parser, UFLoss, UFLOSS_ARGS)
    cli.add_arguments_of(parser, MriDataModule, ("test_split", "test_path"))
    parser.add_argument("--score_stride", type=int, help="of the patches that the test is scored on")
    return parser


def main() -> None:
    own, further = split_arguments(sys.argv[1:])
    args = make_arguments().parse_args(own)
    check_arguments(args, further)
    runs = [Run(weight, seed, args.output_path) for seed in args.seeds for weight in args.weights]
    if args.mode == "train":
        sweep_runs.train(args, runs, further)
    tested = [run for run in runs if run.checkpoint is not None]
    missing = [run.name for run in runs if run not in tested]
    if not tested:
        raise ValueError(f"--mode test needs runs with a checkpoint in {args.output_path / 'runs'}, got none")
    if missing:
        cli.say(f"Left out, since they have no checkpoint: {', '.join(missing)}")
    sweep_runs.test(args, tested, further)
    draw(args, tested, missing)


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's own arguments, and after ``--`` those of the recipe."""
    if "--" not in argv:
        return list(argv), []
    place = argv.index("--")
    return list(argv[:place]), list(argv[place + 1 :])


def check_arguments(args: argparse.Namespace, further: Sequence[str]) -> None:
    """What would fail late, or spoil the comparison, is refused at once."""
    for weight in args.weights:
        try:
            number = 1.0 if weight == ALONE else float(weight.replace("_", "?"))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ValueError(f"--weights must be numbers >= 0 or {ALONE!r}, got {weight!r}")
    for name in ("weights", "seeds"):
        values = getattr(args, name)
        if len(set(values)) != len(values):
            raise ValueError(f"--{name} must differ, got {' '.join(map(str, values))}")
    if len({weight if weight == ALONE else float(weight) for weight in args.weights}) != len(args.weights):
        raise ValueError(f"--weights must differ, got {' '.join(args.weights)}")
    for flag in further:
        if flag.partition("=")[0] in OWN:
            raise ValueError(f"{flag} is the sweep's own: type it before --, or leave it out")
    for name in ("feature_net", "score_feature_net"):
        file = getattr(args, name)
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"no file {file}: check --{name}")
    if args.mode == "train" and args.feature_net is None:
        raise ValueError("--feature_net must name the network of the loss, the same for all runs: see pretrain.py")
    if args.feature_net is not None and digest(args.feature_net) == digest(args.score_feature_net):
        raise ValueError(
            "--score_feature_net must be another network than --feature_net, since a loss must not grade itself: "
            "pretrain.py --seed 2 trains one"
        )


def draw(args: argparse.Namespace, runs: Sequence[Run], missing: Sequence[str]) -> None:
    """The figures and ``sweep.json``, from the scores of the tests."""
    metrics = {f"NRMSE ({args.reference})": "NRMSE", f"SSIM ({args.reference})": "SSIM", "UFLoss": "UFLoss"}
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for run in runs:
        scores.setdefault(run.weight, {})[run.seed] = sweep_runs.read_scores(run)
    scores = {weight: scores[weight] for weight in args.weights if weight in scores}
    rows, differences = sweep_rows(scores, list(metrics)), difference_rows(scores, list(metrics))
    figures = {
        suffix: (args.output_path / f"sweep.{suffix}", args.output_path / f"panels.{suffix}")
        for suffix in ("png", "pdf")
    }
    panels = choose_panels(args, runs)
    for sweep, picture in figures.values():
        distortion, _, perception = metrics
        save_sweep(sweep, rows, metrics=metrics, distortion=distortion, perception=perception, title=args.title)
        text = figure_slices.as_text(panels.scores)
        save_panels(picture, panels.reference, panels.images, scores=text, title=panels.title)
    document = {
        "weights": list(scores),
        "reference": args.reference,
        "left out": list(missing),
        "scores": rows,
        "differences": differences,
        "panels": {"title": panels.title, "scores": panels.scores},
    }
    write_json(args.output_path / "sweep.json", document)
    cli.say(format_table([{k: v for k, v in row.items() if k != "seeds"} for row in rows]))
    shown = [{k: "-" if v is None else v for k, v in row.items()} for row in differences]
    cli.say(f"\nDifferences, paired by seed, with 95% intervals by Student's t:\n{format_table(shown)}")
    cli.say(f"Pictures: {figures['png'][0]}, {figures['png'][1]}\nNumbers: {args.output_path / 'sweep.json'}")


def choose_panels(args: argparse.Namespace, runs: Sequence[Run]) -> Panels:
    """A slice by all weights, of their first seeds, beside the RSS image of the volume."""
    first: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: args.seeds.index(run.seed)):
        first.setdefault(run.weight, run)
    test_path = getattr(args, "test_path", None)
    folder = test_path or args.data_path / f"{args.challenge}_{getattr(args, 'test_split', 'test')}"
    methods = {
        "UFLoss alone" if weight == ALONE else f"weight {weight}": first[weight].path("tests") / "reconstructions"
        for weight in args.weights
        if weight in first
    }
    data = Reconstructions(methods, {"reference": folder}, common=True)
    volume, number = figure_slices.choose(data.volumes, args.volume, args.slice)
    images = volume.read(number)
    seeds = sorted({run.seed for run in first.values()})
    return Panels(
        reference=("reference", images.references["reference"][0]),
        images={name: output[0] for name, output in images.outputs.items()},
        scores=figure_slices.slice_scores(volume, number),
        title=f"{volume.name}, slice {number}, seed {', '.join(map(str, seeds))}",
    )


if __name__ == "__main__":
    cli.run(main)
