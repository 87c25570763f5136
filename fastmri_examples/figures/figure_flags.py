"""What the figures share: flags of pictures, networks and images, and how these are opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recipe
import torch
from jsonargparse import ArgumentParser, Namespace

from fastmri_ufloss.files import write_json
from fastmri_ufloss.metrics import UFLossMetric
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures.images import FigureImages


def add_output_arg(group: Any) -> None:
    text = "a PNG or PDF; the numbers go to a JSON file beside it"
    group.add_argument("--output", type=Path, required=True, help=text)


def add_image_args(parser: ArgumentParser) -> Any:
    """The flags of network and images, as a group."""
    group = parser.add_argument_group("network and images")
    text = "of 1 or 2 channels (default: what pretrain.py has written)"
    group.add_argument("--feature_net", type=Path | None, help=text)
    recipe.add_folder_args(group, "fastMRI volumes or leaderboard files, or with {challenge}_test")
    group.add_argument("--device", help="of torch (default: cuda if there is one, otherwise cpu)")
    add_output_arg(group)
    return group


def add_score_args(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("UFLoss of the images")
    group.add_argument("--feature_net", type=Path | None, help="of magnitudes")
    recipe.add_arguments(group, UFLossMetric, ("stride",))


def load_score_net(parser: ArgumentParser, args: Namespace) -> PatchFeatureNet | None:
    if args.feature_net is not None:
        return recipe.load_feature_net(args.feature_net, in_chans=1)
    if recipe.changed(parser, args, ("stride",)):
        raise ValueError("--stride is for UFLoss of the images, whose network --feature_net names")
    return None


def load_network_and_images(args: Namespace) -> tuple[PatchFeatureNet, Path, FigureImages]:
    """The feature network on its device, the data folder and its test images; a wrong --output is refused at once."""
    if args.output.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"--output must end in one of .png, .pdf, got {args.output}")
    data_path, file = recipe.find_data(args), args.feature_net
    if file is None:
        demo = recipe.uses_demo(args)
        file = recipe.log_path() / ("feature_net_demo" if demo else "feature_net") / recipe.FEATURE_NET
        if not file.is_file():
            raise FileNotFoundError(
                f"no --feature_net, and no {file} yet: train one with "
                f"python fastmri_examples/modl_ufloss/pretrain.py --challenge {args.challenge}"
                + ("" if demo else f" --data_path {data_path}")
            )
        recipe.say(f"Feature network: {file}")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    net = PatchFeatureNet.load(file).requires_grad_(False).to(device)
    return net, data_path, open_images(data_path, net, args.challenge)


def open_images(folder: Path, net: PatchFeatureNet, challenge: str, *, split: str = "test") -> FigureImages:
    """The images of a folder, or of its subfolder of a split where it has one."""
    subfolder = folder / f"{challenge}_{split}"
    return FigureImages(subfolder if subfolder.is_dir() else folder, net)


def finish(output: Path, numbers: Mapping[str, Any], *others: Path, net: PatchFeatureNet | None = None) -> None:
    """Write the numbers beside the picture, and say where they and other pictures are."""
    file, names = output.with_suffix(".json"), ("in_chans", "patch_size", "num_features")
    facts = {} if net is None else {"feature_net": {name: getattr(net, name) for name in names}}
    write_json(file, {**facts, **numbers})
    recipe.say(f"{'Pictures' if others else 'Picture'}: {', '.join(map(str, (output, *others)))}\nNumbers: {file}")
