"""Both loss curves of a training and its images at chosen epochs, from its TensorBoard logs: figure 10 of the paper.

    python fastmri_examples/figures/loss_curves.py --run RUN [RUN2 ...] --epochs 1 5 10 --output figure_10.png

RUN is the folder of a training recipe, or NAME=FOLDER. The JSON file beside the picture has the means of each term
over the steps of an epoch that were logged, its value in validation, by which epoch each curve has done 95% of its
fall, and whether the pixel loss is flat while UFLoss still falls. Several runs stand side by side, on the same
scales; one that trains without a term logs it all the same with a weight of 0, --loss l2=1 ufloss=0.

The images are those of the validation that fastMRI's module logs: of 8 bits, each divided by its maximum. For the
NRMSE below an image and, with --feature_net, its UFLoss a reconstruction is multiplied by the factor that brings it
nearest to its target. Without that network the UFLoss, "val.", is the mean of the validation.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import feature_network

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.metrics import UFLossMetric
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.event_files import RunLog
from fastmri_ufloss.report.figures.loss_curves import (
    LossCurves,
    Snapshot,
    compare_falls,
    describe_fall,
    save_loss_curves,
)
from fastmri_ufloss.report.figures.picture import most_textured

TERMS = ("l2", "ufloss")
LABELS = {"ufloss": "UFLoss", "ssim": "1 - SSIM", "dssim": "1 - SSIM"}
FEW_STEPS = 5  # of an epoch: fewer make a rough mean
IMAGE = re.compile(r"val_images_idx_(\d+)/reconstruction")


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--run", nargs="+", required=True, metavar="FOLDER", help="run folders, or NAME=FOLDER")
    parser.add_argument(
        "--output", type=Path, required=True, help="a PNG or PDF; the numbers go to a JSON file beside it"
    )
    parser.add_argument(
        "--epochs", nargs="+", type=int, default=None, help="of the images, from 1 (default: first, middle, last)"
    )
    parser.add_argument(
        "--images", action=argparse.BooleanOptionalAction, default=True, help="show images of the validation"
    )
    parser.add_argument(
        "--image", type=int, default=None, help="number of its validation batch (default: the most textured logged)"
    )
    parser.add_argument(
        "--terms", nargs=2, default=list(TERMS), metavar="TERM", help=f"of the loss (default: {' '.join(TERMS)})"
    )
    parser.add_argument("--feature_net", type=Path, default=None, help="of magnitudes, for UFLoss of the images")
    cli.add_arguments_of(parser, UFLossMetric, ("stride",))
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    if hasattr(args, "stride") and args.feature_net is None:
        raise ValueError("--stride is for UFLoss of the images, whose network --feature_net names")
    logs = read_runs(args.run)
    check_terms(logs, args.terms)
    net = None if args.feature_net is None else feature_network.load(args.feature_net, in_chans=1)
    epochs, image = choose_images(logs, args.epochs, args.image) if args.images else ([], 0)
    runs, numbers = [], {}
    for name, log in logs.items():
        terms = {
            kind: {
                term: log.by_epoch(f"{kind}_terms/{term}")
                for term in args.terms
                if f"{kind}_terms/{term}" in log.scalars
            }
            for kind in ("train", "val")
        }
        target, shown, values = snapshots(log, epochs, image, net, cli.typed(args, ("stride",)))
        is_rough = min(steps_of(log, terms["train"]).values(), default=FEW_STEPS) < FEW_STEPS
        runs.append(LossCurves(name, terms["train"], terms["val"], target, shown, is_rough))
        numbers[name] = describe(log, terms, args.terms) | {"images": values}
    labels = {term: LABELS.get(term, f"pixel loss ({term})") for term in args.terms}
    save_loss_curves(args.output, runs, labels=labels)
    settings = {
        "terms": args.terms,
        "image": image if epochs else None,
        "folders": {name: str(log.folder) for name, log in logs.items()},
    }
    file = args.output.with_suffix(".json")
    write_json(file, {"settings": settings, "runs": numbers})
    report(numbers, list(labels.values()))
    cli.say(f"Picture: {args.output}\nNumbers: {file}")


def read_runs(texts: Sequence[str]) -> dict[str, RunLog]:
    """The logs by name."""
    logs: dict[str, RunLog] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = Path(text).resolve().name, text
        if not name or name in logs:
            raise ValueError(f"--run must have different names, got {name!r} twice: type NAME=FOLDER")
        logs[name] = RunLog(folder)
    return logs


def check_terms(logs: Mapping[str, RunLog], terms: Sequence[str]) -> None:
    """A run may lack a term beside one that has it; what no run has logged is an error.

    Raises:
        ValueError: if it is so; it says which flag logs the term.
    """
    for term in terms:
        lacking = [
            name
            for name, log in logs.items()
            if not {f"{k}_terms/{term}" for k in ("train", "val")} & set(log.scalars)
        ]
        how = f"a recipe logs each term that --loss names, with {term}=0 also one that it does not train with"
        if len(lacking) == len(logs):
            known = sorted(
                {tag.partition("/")[2] for log in logs.values() for tag in log.scalars if "_terms/" in tag}
            )
            raise ValueError(f"no run has logged the term {term!r}, only {', '.join(known) or 'none'}: {how}")
        if lacking:
            cli.say(f"{', '.join(lacking)} has not logged the term {term!r}: {how}")


def choose_images(logs: Mapping[str, RunLog], epochs: list[int] | None, image: int | None) -> tuple[list[int], int]:
    """The epochs to show, and the number of an image that all runs have logged in all of them.

    Raises:
        ValueError: if there is none; it says which flags log them.
    """
    found: dict[int, set[int]] = {}
    for number, log in enumerate(logs.values()):
        of_run = {}
        for tag, of_tag in log.image_epochs.items():
            match = IMAGE.fullmatch(tag)
            if match:
                of_run[int(match[1])] = set(of_tag)
        found = of_run if not number else {i: found[i] & of_run[i] for i in found if i in of_run}
    if not any(found.values()):
        raise ValueError(
            "the runs have logged no validation image in common: --num_log_images of the recipe, with a validation "
            "(--limit_val_batches not 0) and the same --seed, logs them; --no-images draws the curves alone"
        )
    if image is not None and image not in found:
        raise ValueError(f"--image must be one of those logged, {', '.join(map(str, sorted(found)))}, got {image}")
    common = {image: found[image]} if image is not None else found
    known = sorted(set().union(*common.values()))
    wanted = epochs or sorted({known[0], known[(len(known) - 1) // 2], known[-1]})
    fitting = [i for i, of_image in common.items() if set(wanted) <= of_image]
    if not fitting:
        raise ValueError(
            f"--epochs must be some of which all runs have logged the images of one slice, got {wanted}; there are "
            + "; ".join(f"{sorted(e)} of --image {i}" for i, e in sorted(common.items()))
        )
    log = next(iter(logs.values()))
    return wanted, max(fitting, key=lambda i: texture(log.read_image(f"val_images_idx_{i}/target", wanted[0])))


def texture(image: np.ndarray) -> float:
    """The gradients of the most textured part of an image."""
    row, col, side = most_textured(image)
    return float(np.hypot(*np.gradient(image[row : row + side, col : col + side])).sum()) if side > 1 else 0.0


def snapshots(
    log: RunLog, epochs: Sequence[int], image: int, net: PatchFeatureNet | None, options: Mapping[str, Any]
) -> tuple[np.ndarray | None, dict[int, Snapshot], dict[int, dict[str, float]]]:
    """Target, images and their scores by epoch."""
    target: np.ndarray | None = None
    shown: dict[int, Snapshot] = {}
    scores: dict[int, dict[str, float]] = {}
    for epoch in epochs:
        target = log.read_image(f"val_images_idx_{image}/target", epoch)
        output = log.read_image(f"val_images_idx_{image}/reconstruction", epoch)
        energy = float(np.square(output, dtype=np.float64).sum())
        output = output * (float(np.sum(output * target, dtype=np.float64)) / energy if energy else 1.0)
        scores[epoch] = {"NRMSE": float(np.linalg.norm(output - target) / np.linalg.norm(target))}
        if net is not None:
            pair = (torch.from_numpy(x)[None, None].float() for x in (output, target))
            stride = options.get("stride", UFLossMetric(net).stride)
            scores[epoch]["UFLoss"] = float(ufloss_per_image(net.eval().requires_grad_(False), *pair, stride=stride))
        elif "val_terms/ufloss" in log.scalars and epoch in (values := log.by_epoch("val_terms/ufloss")):
            scores[epoch]["UFLoss (val.)"] = values[epoch]
        shown[epoch] = Snapshot(output, "\n".join(f"{name} {value:.3f}" for name, value in scores[epoch].items()))
    return target, shown, scores


def describe(log: RunLog, terms: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The curves of a run and what they say."""
    document: dict[str, Any] = {}
    for kind, curves in terms.items():
        described = {term: {**describe_fall(curve), "by epoch": curve} for term, curve in curves.items()}
        if not described:
            continue
        few = kind == "train" and min(steps_of(log, curves).values()) < FEW_STEPS
        if set(names) <= set(curves) and not few:
            described["comparison"] = compare_falls(*(curves[name] for name in names))
        document["training" if kind == "train" else "validation"] = described
    document["logged steps per epoch"] = steps_of(log, terms["train"])
    return document


def steps_of(log: RunLog, terms: Iterable[str]) -> dict[str, float]:
    """How many steps of an epoch of the training were logged, by term."""
    return {term: log.steps_per_epoch(f"train_terms/{term}") for term in terms}


def report(numbers: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> None:
    """The numbers in short, on the terminal."""
    rows = []
    for name, of_run in numbers.items():
        for kind in ("training", "validation"):
            for term, described in of_run.get(kind, {}).items():
                if term == "comparison":
                    continue
                shown = {k: "-" if v is None else v for k, v in described.items() if k != "by epoch"}
                rows.append({"run": name, "of": kind, "term": term, **shown})
    cli.say(format_table(rows))
    for name, of_run in numbers.items():
        for kind in ("training", "validation"):
            found = of_run.get(kind, {}).get("comparison")
            left = (found or {}).get("fall of the feature loss still to come")
            if left is not None:
                flat = found["pixel loss flat from epoch"]
                cli.say(
                    f"{name}, {kind}: {labels[0]} is flat from epoch {flat}, when {left:.0%} of the fall of "
                    f"{labels[1]} are still to come"
                )
        few = min(of_run["logged steps per epoch"].values(), default=FEW_STEPS)
        if few < FEW_STEPS:
            cli.say(
                f"{name} has logged {few:.1f} steps of an epoch, which say little of its training: "
                "--log_every_n_steps 1 of the recipe logs all"
            )


if __name__ == "__main__":
    cli.run(main)
