"""The loss flags that all training recipes share: what is written after ``--loss``, and the networks it needs."""

import argparse
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import command_line as cli
from torch import nn

from fastmri_ufloss.losses import LOSS_NAMES, LinearRamp, MSSSIMLoss, UFLoss, WeightedLoss, make_loss
from fastmri_ufloss.losses.weighted import Weight
from fastmri_ufloss.metrics import METRIC_NAMES, VolumeMetric, make_metrics
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures, load_vgg_features

UFLOSS_ARGS = ("stride", "patches_per_step", "chunk_size")
RAMP = re.compile(r"(?P<start>[^:@]+):(?P<end>[^:@]+)@(?P<first>\d+)-(?P<last>\d+)")
GRAMMAR = (
    "NAME, NAME=WEIGHT, or NAME=FROM:TO@EPOCH-EPOCH for a weight that grows or falls in a line between two epochs"
)


# flags that only one loss has a use for
NEEDS = {
    **dict.fromkeys(UFLOSS_ARGS, "ufloss"),
    "ms_ssim_scales": "ms_ssim",
    "vgg": "perceptual",
    "vgg_weights": "perceptual",
}


def add_loss_args(
    parser: argparse.ArgumentParser,
    *,
    default: Sequence[str] | None,
    default_text: str,
    metrics: Sequence[str] = METRIC_NAMES,
) -> None:
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
    arch = inspect.signature(VGGFeatures).parameters["arch"].default
    group.add_argument("--vgg", choices=("vgg16", "vgg19"), help=f"of perceptual (default: {arch})")
    group.add_argument(
        "--vgg_weights",
        metavar="FILE",
        help="of perceptual: a file with torchvision's ImageNet weights, 'download', or 'random' to try things "
        "(default: the file that torchvision has downloaded before)",
    )
    group.add_argument(
        "--metrics", nargs="+", default=[], choices=metrics, help="further metrics of the validation to log"
    )


class LossFlags:
    """What the flags of the loss ask for.

    Args:
        args: of a recipe. Settings of the losses are read when the loss is made.

    Raises:
        ValueError: if a flag cannot be read, or is for a loss that is not there.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._vgg: VGGFeatures | None = None
        self.weights = None if args.loss is None else parse_loss(args.loss)
        used = {*(self.weights or {}), *args.metrics}
        for flag, loss in NEEDS.items():
            if hasattr(args, flag) and loss not in used:
                raise ValueError(f"--{flag} is for the loss {loss}, which --loss does not name")
        if self.weights is None and (args.normalize_losses or args.grad_norms_every is not None):
            raise ValueError("--normalize_losses and --grad_norms_every are for terms that --loss names")

    @property
    def needs_feature_net(self) -> bool:
        """Whether a feature network is part of the loss or of the metrics."""
        return "ufloss" in (self.weights or {}) or "ufloss" in self._args.metrics

    @property
    def settings(self) -> dict[str, Any]:
        """What a run's loss depends on, to be compared when it goes on."""
        names = ("loss", "normalize_losses", *NEEDS)
        return {name: value for name, value in cli.typed(self._args, names).items() if value is not None}

    def prepare(self) -> None:
        """Fail now, and not after the feature network was trained: read the VGG, make the loss without that network.

        Raises:
            ValueError, OSError: if the loss cannot be made.
        """
        if "perceptual" in (self.weights or {}):
            self._vgg = _load_vgg(self._args)
        self.make_loss(nn.Identity())

    def make_loss(self, feature_net: nn.Module | None) -> WeightedLoss | None:
        """The loss, or None where the user has typed none."""
        if self.weights is None:
            return None
        settings: dict[str, dict[str, Any]] = {}
        if "ufloss" in self.weights:
            settings["ufloss"] = cli.typed(self._args, UFLOSS_ARGS)
        if hasattr(self._args, "ms_ssim_scales"):
            settings["ms_ssim"] = {"num_scales": self._args.ms_ssim_scales}
        return make_loss(
            self.weights,
            feature_net=feature_net,
            vgg=self._vgg,
            settings=settings,
            normalize=self._args.normalize_losses,
            grad_norms_every=self._args.grad_norms_every,
        )

    def make_metrics(self, feature_net: PatchFeatureNet | None) -> dict[str, VolumeMetric]:
        """The metrics that ``--metrics`` names."""
        ufloss = cli.typed(self._args, ("stride", "chunk_size"))
        return make_metrics(self._args.metrics, feature_net=feature_net, ufloss=ufloss)


def parse_loss(items: Iterable[str]) -> dict[str, Weight]:
    """``["l2=1", "ufloss=0:1.5@5-20"]`` as weights by name; a name alone has weight 1.

    Raises:
        ValueError: if a name is unknown or given twice, or a weight is no number >= 0 and no ramp of such.
    """
    weights: dict[str, Weight] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if name not in LOSS_NAMES:
            raise ValueError(f"--loss: unknown loss {name!r}, known are {', '.join(LOSS_NAMES)}")
        if name in weights:
            raise ValueError(f"--loss: {name!r} is given twice")
        ramp = RAMP.fullmatch(text)
        if ramp is None:
            weights[name] = _number(name, text if equals else "1")
        else:
            first, last = int(ramp["first"]), int(ramp["last"])
            if last <= first:
                raise ValueError(f"--loss: the ramp of {name!r} must end in a later epoch than {first}, got {last}")
            weights[name] = LinearRamp(_number(name, ramp["start"]), _number(name, ramp["end"]), first, last)
    return weights


def _number(name: str, text: str) -> float:
    try:
        number = float(text.replace("_", "?"))  # Python's 1_000 is no number here
    except ValueError:
        raise ValueError(
            f"--loss: the weight of {name!r} must be a number or FROM:TO@EPOCH-EPOCH, got {text!r}"
        ) from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"--loss: the weight of {name!r} must be a number >= 0, got {text!r}")
    return number


def _load_vgg(args: argparse.Namespace) -> VGGFeatures:
    """The network of ``perceptual``."""
    arch = cli.typed(args, ("vgg",)).values()
    weights = getattr(args, "vgg_weights", None)
    if weights == "random":
        cli.say("--vgg_weights random: the perceptual loss compares features of an untrained VGG")
        return VGGFeatures(*arch)
    arch = arch or (inspect.signature(VGGFeatures).parameters["arch"].default,)
    return load_vgg_features(*arch, weights=weights if weights in (None, "download") else Path(weights))
