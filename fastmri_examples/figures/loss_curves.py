"""Both loss curves of a training and its images at chosen epochs, from its TensorBoard logs: figure 10 of the paper.

    python fastmri_examples/figures/loss_curves.py --run RUN [RUN2 ...] --epochs 1 5 10 --output figure_10.png

RUN is the folder of a training recipe, or NAME=FOLDER. Several runs stand side by side, on the same scales; a run
logs a term that it does not train with if --loss gives it a weight of 0, as l2=1 ufloss=0. The JSON file has the
means of each term by epoch, by which epoch a curve has done 95% of its fall, and whether the pixel loss is flat while
UFLoss still falls. Images are those of the validation that fastMRI's module logs: of 8 bits, each divided by its
maximum, and for NRMSE and, with --feature_net, UFLoss scaled to be nearest to the target. Without --feature_net the
UFLoss below an image, "val.", is the mean of the validation.
"""

import sys
from argparse import BooleanOptionalAction
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.loss_curves import FEW_STEPS, RunLog, choose_images, draw_loss_curves

LABELS = {"ufloss": "UFLoss", "ssim": "1 - SSIM", "dssim": "1 - SSIM"}
HINT = "a recipe logs each term that --loss names, with {}=0 also one that it does not train with"


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--run", nargs="+", required=True, metavar="FOLDER", help="run folders, or NAME=FOLDER")
    figure_flags.add_output_arg(parser)
    text = "of the images, from 1 (default: first, middle, last)"
    parser.add_argument("--epochs", nargs="+", type=int, help=text)
    parser.add_argument("--images", action=BooleanOptionalAction, default=True, help="show images of the validation")
    text = "number of its validation batch (default: the most textured logged)"
    parser.add_argument("--image", type=int | None, help=text)
    parser.add_argument("--terms", nargs=2, default=["l2", "ufloss"], metavar="TERM", help="of the loss")
    figure_flags.add_score_args(parser)
    args = parser.parse_args()

    net = figure_flags.load_score_net(parser, args)
    logs = read_runs(args.run)
    labels = {term: LABELS.get(term, f"pixel loss ({term})") for term in args.terms}
    for term in labels:
        logged = [name for name, log in logs.items() if log.curves("train", [term]) or log.curves("val", [term])]
        lacking = [name for name in logs if name not in logged]
        if not logged:
            tags = sorted({tag.partition("/")[2] for log in logs.values() for tag in log.scalars if "_terms/" in tag})
            known = ", ".join(tags) or "none"
            raise ValueError(f"no run has logged the term {term!r}, only {known}: {HINT.format(term)}")
        if lacking:
            recipe.say(f"{', '.join(lacking)} has not logged the term {term!r}: {HINT.format(term)}")
    epochs, image = choose_images(logs, args.epochs, args.image) if args.images else ([], 0)
    shown = {"epochs": epochs, "image": image}
    numbers = draw_loss_curves(args.output, logs, labels, **shown, net=net, stride=args.stride)
    folders = {name: str(log.folder) for name, log in logs.items()}
    settings = {"terms": args.terms, "image": image if epochs else None, "folders": folders}
    tell(numbers, list(labels.values()))
    figure_flags.finish(args.output, {"settings": settings, "runs": numbers})


def read_runs(texts: Sequence[str]) -> dict[str, RunLog]:
    logs: dict[str, RunLog] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = Path(text).resolve().name, text
        if not name or name in logs:
            raise ValueError(f"--run must have different names, got {name!r} twice: type NAME=FOLDER")
        logs[name] = RunLog(folder)
    return logs


def tell(numbers: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> None:
    """The numbers in short, on the terminal."""
    rows, notes = [], []
    for run, of_run in numbers.items():
        for kind in ("training", "validation"):
            terms = dict(of_run.get(kind, {}))
            comparison = terms.pop("comparison", {})
            for term, described in terms.items():
                shown = {k: "-" if v is None else v for k, v in described.items() if k != "by epoch"}
                rows.append({"run": run, "of": kind, "term": term, **shown})
            left = comparison.get("fall of the feature loss still to come")
            if left is not None:
                notes.append(
                    f"{run}, {kind}: {labels[0]} is flat from epoch {comparison['pixel loss flat from epoch']}, when "
                    f"{left:.0%} of the fall of {labels[1]} are still to come"
                )
        few = min(of_run["logged steps per epoch"].values(), default=FEW_STEPS)
        if few < FEW_STEPS:
            notes.append(
                f"{run} has logged {few:.1f} steps of an epoch, which say little of its training: "
                "--log_every_n_steps 1 of the recipe logs all"
            )
    recipe.say("\n".join([format_table(rows), *notes]))


if __name__ == "__main__":
    recipe.run(main)
