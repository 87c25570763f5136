"""The generator's terms, as train_refinement.py takes them: flags, weights, the perceptual loss."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import command_line as cli
from loss_arguments import UFLOSS_ARGS
from torch import nn

from fastmri_ufloss.losses import LOSS_NAMES, PerceptualLoss, UFLoss
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures, load_vgg_features
from fastmri_ufloss.pl_modules import JOINT_PRESETS, RefinementModule

PERCEPTUAL = ("vgg19", "ufloss", "none")
ADVERSARIAL_TERMS = ("adversarial", "feature_matching", "penalty")
PIXEL_LOSSES = tuple(name for name in LOSS_NAMES if name not in ("perceptual", "ufloss"))
ARGS = ("weights", "preset", "vgg", "vgg_weights", "feature_net", *UFLOSS_ARGS)


def add_objective_args(group: Any) -> None:
    """Flags of the generator's terms."""
    group.add_argument(
        "--perceptual",
        choices=PERCEPTUAL,
        default="ufloss",
        help="what the perceptual term compares; the paper has vgg19 (default: ufloss)",
    )
    group.add_argument(
        "--weights",
        nargs="+",
        metavar="NAME=WEIGHT",
        help="of the terms, if not the paper's: adversarial, feature_matching, penalty, perceptual; "
        f"with --joint also {', '.join(PIXEL_LOSSES)}",
    )
    group.add_argument("--preset", choices=tuple(JOINT_PRESETS), help="weights of --joint (default: equal)")
    group.add_argument("--vgg", choices=("vgg16", "vgg19"), help="of the perceptual term (default: vgg19)")
    group.add_argument("--vgg_weights", metavar="FILE", help="torchvision's ImageNet weights, or 'download'")
    group.add_argument("--feature_net", type=Path, default=None, help="file of a trained feature network, for ufloss")
    cli.add_arguments_of(group, UFLoss, UFLOSS_ARGS)


def check_arguments(args: argparse.Namespace) -> None:
    """What would be ignored is refused.

    Raises:
        ValueError: if a flag is for another objective, or a weight cannot be read.
    """
    if not args.joint and hasattr(args, "preset"):
        raise ValueError("--preset is for --joint")
    for name in ("vgg", "vgg_weights"):
        if hasattr(args, name) and args.perceptual != "vgg19":
            raise ValueError(f"--{name} is for --perceptual vgg19, got {args.perceptual}")
    for name in (*UFLOSS_ARGS, "feature_net"):
        if getattr(args, name, None) is not None and args.perceptual != "ufloss":
            raise ValueError(f"--{name} is for --perceptual ufloss, got {args.perceptual}")
    weights = parse_weights(getattr(args, "weights", []))
    if args.joint and "penalty" in weights:
        raise ValueError("--weights: penalty is of the refinement network, which --joint has not")
    if args.perceptual == "none" and "perceptual" in weights:
        raise ValueError("--weights: perceptual is for a term that --perceptual none leaves out")
    pixel_losses = [name for name in weights if name in PIXEL_LOSSES]
    if not args.joint and pixel_losses:
        raise ValueError(f"--weights: {pixel_losses[0]} is for --joint, a refinement has no pixel loss")


def parse_weights(items: list[str]) -> dict[str, float]:
    """``["adversarial=0.5"]`` as weights by name."""
    weights = {}
    for item in items:
        name, _, text = item.partition("=")
        if name not in (*ADVERSARIAL_TERMS, "perceptual", *PIXEL_LOSSES):
            raise ValueError(f"--weights: unknown term {name!r}")
        try:
            weights[name] = float(text)
        except ValueError:
            raise ValueError(f"--weights: the weight of {name!r} must be a number, got {text!r}") from None
    return weights


def weights_of(args: argparse.Namespace, losses: Iterable[str]) -> dict[str, float]:
    """The weights of a refinement with these image losses: the paper's, as the user has changed them."""
    return {**RefinementModule.default_weights(losses), **parse_weights(getattr(args, "weights", []))}


def load_vgg(args: argparse.Namespace) -> VGGFeatures:
    """The network of the perceptual term."""
    weights = getattr(args, "vgg_weights", None)
    try:
        return load_vgg_features(
            getattr(args, "vgg", "vgg19"), weights=weights if weights in (None, "download") else Path(weights)
        )
    except OSError as error:
        raise type(error)(f"{error}; or take --perceptual ufloss, which needs no download") from error


def perceptual_loss(
    args: argparse.Namespace, vgg: VGGFeatures | None, net: PatchFeatureNet | None
) -> dict[str, nn.Module]:
    """The perceptual term by its name, or nothing."""
    if vgg is not None:
        return {"perceptual": PerceptualLoss(vgg)}
    return {} if net is None else {"perceptual": UFLoss(net, **cli.typed(args, UFLOSS_ARGS))}
