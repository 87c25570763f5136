"""What the figures of feature networks share: the flags of network and images, and how they are opened."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command_line as cli
import torch

from fastmri_ufloss.files import write_json
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures.images import FigureImages

NET_FILE = "feature_net.safetensors"
SUFFIXES = (".png", ".pdf")


def add_image_args(parser: argparse.ArgumentParser) -> Any:
    """The flags of network and images, as a group."""
    group = parser.add_argument_group("network and images")
    group.add_argument(
        "--feature_net", type=Path, default=None, help="of 1 or 2 channels (default: what pretrain.py has written)"
    )
    group.add_argument(
        "--data_path",
        type=Path,
        default=None,
        help="folder of fastMRI volumes or of leaderboard files, or one with {challenge}_test "
        "(default: the generated demo data set)",
    )
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {cli.DIRS_FILE}")
    group.add_argument("--device", default=None, help="of torch (default: cuda if there is one, otherwise cpu)")
    group.add_argument(
        "--output", type=Path, required=True, help="a PNG or PDF; the numbers go to a JSON file beside it"
    )
    return group


def load_network_and_data(args: argparse.Namespace) -> tuple[PatchFeatureNet, Path]:
    """The feature network on its device, and the data folder; what would fail in the end is refused at once."""
    if args.output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(SUFFIXES)}, got {args.output}")
    data_path, is_demo = cli.find_data(args)
    file = args.feature_net
    if file is None:
        file = cli.log_path() / ("feature_net_demo" if is_demo else "feature_net") / NET_FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"no --feature_net, and no {file} yet: train one with "
                f"python fastmri_examples/modl_ufloss/pretrain.py --challenge {args.challenge}"
                + ("" if is_demo else f" --data_path {data_path}")
            )
        cli.say(f"Feature network: {file}")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return PatchFeatureNet.load(file).requires_grad_(False).to(device), data_path


def load_magnitude_net(file: Path) -> PatchFeatureNet:
    """A feature network of magnitudes."""
    net = PatchFeatureNet.load(file)
    if net.in_chans != 1:
        raise ValueError(
            f"{file} is a feature network of in_chans {net.in_chans}, magnitude images need one of 1: train one with "
            "pretrain.py --images rss"
        )
    return net


def open_images(folder: Path, net: PatchFeatureNet, challenge: str, *, split: str = "test") -> FigureImages:
    """The images of a folder, or of its subfolder of a split where it has one."""
    subfolder = folder / f"{challenge}_{split}"
    return FigureImages(subfolder if subfolder.is_dir() else folder, net)


def finish(output: Path, net: PatchFeatureNet, document: Mapping[str, Any], *others: Path) -> None:
    """Write the numbers beside the picture, and say where they and other pictures are."""
    file = output.with_suffix(".json")
    facts = {name: getattr(net, name) for name in ("in_chans", "patch_size", "num_features")}
    write_json(file, {"feature_net": facts, **document})
    cli.say(f"{'Pictures' if others else 'Picture'}: {', '.join(map(str, (output, *others)))}\nNumbers: {file}")
