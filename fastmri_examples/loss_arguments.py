"""The loss flags that all training recipes share: what is written after ``--loss``, and the networks it needs."""

import argparse
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import command_line as cli

from fastmri_ufloss.losses import LOSS_NAMES, LinearRamp, MSSSIMLoss, UFLoss, WeightedLoss, make_loss
from fastmri_ufloss.losses.weighted import Weight
from fastmri_ufloss.metrics import METRIC_NAMES, VolumeMetric, make_metrics
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures, load_vgg_features

UFLOSS_ARGS = ("stride", "patches_per_step", "chunk_size")
RAMP = re.compile(r"(?P<start>[^:@]+):(?P<end>[^:@]+)@(?P<first>\d+)-(?P<last>\d+)")
GRAMMAR = (
    "NAME, NAME=WEIGHT, or NAME=FROM:TO@EPOCH-EPOCH for a weight that grows or falls in a line between two epochs"
)


def add_loss_args(parser: argparse.ArgumentParser, *, default: Sequence[str] | None, default_text: str) -> None:
    """Flags of the loss and of the metrics; ``default`` is the loss where the user types none."""
    group = parser.add_argument_group("loss")
    group.add_argument(
        "--loss",
        nargs="+",
        default=default,
        metavar="NAME=WEIGHT",
        help=f"terms out of {', '.join(LOSS_NAMES)}: {GRAMMAR} (default: {default_text})",
    )
    group.add_argument(
        "--normalize_losses",
        action="store_true",
        default=False,
        help="divide each term by its value in the first training batch, before it is weighted",
    )
    group.add_argument(
        "--grad_norms_every", type=int, default=None, help="log the norm of each term's gradient every so many steps"
    )
    group.add_argument("--feature_net", type=Path, default=None, help="file of a trained feature network, for ufloss")
    cli.add_arguments_of(group, UFLoss, UFLOSS_ARGS)
    scales = inspect.signature(MSSSIMLoss).parameters["num_scales"].default
    group.add_argument("--ms_ssim_scales", type=int, help=f"of ms_ssim, fewer for small images (default: {scales})")
    group.add_argument("--vgg", choices=("vgg16", "vgg19"), default="vgg16", help="of perceptual (default: vgg16)")
    group.add_argument(
        "--vgg_weights",
        default=None,
        metavar="FILE",
        help="of perceptual: a file with torchvision's ImageNet weights, 'download', or 'random' to try things "
        "(default: the file that torchvision has downloaded before)",
    )
    group.add_argument(
        "--metrics", nargs="+", default=[], choices=METRIC_NAMES, help="further metrics of the validation to log"
    )


def parse_loss(items: Iterable[str]) -> dict[str, Weight]:
    """``["l2=1", "ufloss=0:1.5@5-20"]`` as weights by name; a name alone has weight 1.

    Raises:
        ValueError: if a name is unknown or given twice, or a weight is no number >= 0 and no ramp of such.
    """
    weights: dict[str, Weight] = {}
    for item in items:
        name, _, text = item.partition("=")
        if name not in LOSS_NAMES:
            raise ValueError(f"--loss: unknown loss {name!r}, known are {', '.join(LOSS_NAMES)}")
        if name in weights:
            raise ValueError(f"--loss: {name!r} is given twice")
        ramp = RAMP.fullmatch(text)
        if ramp is None:
            weights[name] = _number(name, text or "1")
        else:
            first, last = int(ramp["first"]), int(ramp["last"])
            if last <= first:
                raise ValueError(f"--loss: the ramp of {name!r} must end in a later epoch than {first}, got {last}")
            weights[name] = LinearRamp(_number(name, ramp["start"]), _number(name, ramp["end"]), first, last)
    return weights


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(
            f"--loss: the weight of {name!r} must be a number or FROM:TO@EPOCH-EPOCH, got {text!r}"
        ) from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"--loss: the weight of {name!r} must be a number >= 0, got {text!r}")
    return number


def loss_of(
    args: argparse.Namespace, weights: Mapping[str, Weight], *, feature_net: PatchFeatureNet | None
) -> WeightedLoss:
    """The loss that the flags ask for."""
    settings: dict[str, dict[str, Any]] = {}
    if "ufloss" in weights:
        settings["ufloss"] = cli.typed(args, UFLOSS_ARGS)
    if "ms_ssim" in weights and hasattr(args, "ms_ssim_scales"):
        settings["ms_ssim"] = {"num_scales": args.ms_ssim_scales}
    return make_loss(
        weights,
        feature_net=feature_net,
        vgg=load_vgg(args) if "perceptual" in weights else None,
        settings=settings,
        normalize=args.normalize_losses,
        grad_norms_every=args.grad_norms_every,
    )


def load_vgg(args: argparse.Namespace) -> VGGFeatures:
    """The network of ``perceptual``."""
    if args.vgg_weights == "random":
        cli.say("--vgg_weights random: the perceptual loss compares features of an untrained VGG")
        return VGGFeatures(args.vgg)
    weights = args.vgg_weights if args.vgg_weights in (None, "download") else Path(args.vgg_weights)
    return load_vgg_features(args.vgg, weights=weights)


def metrics_of(args: argparse.Namespace, *, feature_net: PatchFeatureNet | None = None) -> dict[str, VolumeMetric]:
    """The metrics that ``--metrics`` names; they see magnitude images."""
    if "ufloss" in args.metrics and feature_net is None:
        raise ValueError(
            "--metrics ufloss needs a feature network of 1 channel: --feature_net FILE, made by pretrain.py --images "
            "rss (MoDL's complex images are scored with theirs after training)"
        )
    return make_metrics(args.metrics, feature_net=feature_net)
