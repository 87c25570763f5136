"""Figures 5B, S1 and S2 of the UFLoss paper: where a patch finds its like, by features and by SSIM.

    python fastmri_examples/figures/correlation_maps.py --feature_net FILE --data_path FOLDER --output figure_5b.png

Source patches of an image are compared with all patches on a grid of (1) the same image, (2) an image of another
subject with the same contrast, (3) an image of another subject with another contrast (attribute ``acquisition``), and
(4) an image of --other_data_path, such as another anatomy. What the data do not have is left out, and said. The maps
of SSIM beside those of the features are of the magnitudes. A second picture, *_best.*, shows the best patch of each
image by either measure (figure S2). The JSON file has the places and the values.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line as cli
import figure_images
import torch
from figure_images import FigureImages
from torch import Tensor

from fastmri_ufloss.metrics.correlation_maps import best_match, feature_maps, ssim_maps
from fastmri_ufloss.metrics.textured_patches import textured_corners
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report.figures.correlation_maps import MappedImage, save_best_matches, save_correlation_maps

NUM_PATCHES = 2


def make_parser() -> argparse.ArgumentParser:
    """The flags of this figure."""
    parser = cli.make_parser(__doc__)
    group = figure_images.add_image_args(parser)
    group.add_argument("--other_data_path", type=Path, default=None, help="folder with images of another kind")
    group.add_argument("--volume", default=None, help="file name of the source (default: the first of the folder)")
    group.add_argument("--slice", type=int, default=None, help="of the source (default: the middle one)")
    group.add_argument(
        "--patch",
        nargs=2,
        type=int,
        action="append",
        metavar=("ROW", "COL"),
        help=f"upper left corner of a source patch, up to 4 (default: the {NUM_PATCHES} most textured ones)",
    )
    cli.add_arguments_of(group, feature_maps, ("stride", "chunk_size"))
    return parser


def main() -> None:
    args = make_parser().parse_args()
    net, data_path, device = figure_images.load_network_and_data(args)
    images = figure_images.open_images(data_path, net, args.challenge)
    number = 0 if args.volume is None else images.number_of(args.volume)
    slice_num = images.volumes[number].shape[0] // 2 if args.slice is None else args.slice
    source = images.read(number, slice_num)
    stride = getattr(args, "stride", figure_images.default_of(feature_maps, "stride"))
    corners = source_corners(args, source, net, stride)
    targets = [("same image", images, number, slice_num), *other_images(images, number, slice_num)]
    if args.other_data_path is not None:
        others = figure_images.open_images(args.other_data_path, net, args.challenge)
        middle = len(others.volumes) // 2
        targets.append(("other data", others, middle, others.volumes[middle].shape[0] // 2))
    grid = {"stride": stride, **cli.typed(args, ("chunk_size",))}
    mapped = []
    for name, folder, volume, index in targets:
        image = source if name == "same image" else folder.read(volume, index)
        label = f"{name}\n{folder.label(volume, index)}"
        mapped.append(map_image(label, net, source.to(device), corners, image.to(device), grid))
    patches: list[tuple[int, int]] = [(row, col) for row, col in corners.tolist()]
    save_correlation_maps(args.output, mapped, patches, patch_size=net.patch_size, stride=stride)
    written = [args.output]
    if len(mapped) > 1:
        written.append(args.output.with_name(f"{args.output.stem}_best{args.output.suffix}"))
        save_best_matches(written[-1], mapped, patches, patch_size=net.patch_size)
    document = {
        "feature_net": figure_images.describe_network(net),
        "source": images.label(number, slice_num),
        "stride": stride,
        "patches": [numbers_of(mapped, index, corner) for index, corner in enumerate(patches)],
    }
    write_json(figure_images.json_beside(args.output), document)
    cli.say(f"Pictures: {', '.join(map(str, written))}\nNumbers: {figure_images.json_beside(args.output)}")


def source_corners(args: argparse.Namespace, source: Tensor, net: PatchFeatureNet, stride: int) -> Tensor:
    """The patches that the user has typed, or else the most textured ones, which are put on the grid."""
    if not hasattr(args, "patch"):
        return textured_corners(source, net.patch_size, count=NUM_PATCHES) // stride * stride
    for row, col in args.patch:
        if not (0 <= row <= source.shape[0] - net.patch_size and 0 <= col <= source.shape[1] - net.patch_size):
            raise ValueError(
                f"--patch must be the upper left corner of a patch of {net.patch_size}x{net.patch_size} inside the "
                f"image of {source.shape[0]}x{source.shape[1]}, got {row} {col}"
            )
    return torch.tensor(args.patch)


def other_images(images: FigureImages, number: int, slice_num: int) -> list[tuple[str, FigureImages, int, int]]:
    """The slice at the same height of the next volumes of another subject: of the same contrast, and of another."""
    source = images.volumes[number]
    height = (slice_num + 0.5) / source.shape[0]
    following = [*range(number + 1, len(images.volumes)), *range(number)]
    found: list[tuple[str, FigureImages, int, int]] = []
    for name, same in (("another subject", True), ("another subject and contrast", False)):
        fitting = [
            other
            for other in following
            if images.volumes[other].subject != source.subject
            and (images.volumes[other].contrast == source.contrast) == same
        ]
        if fitting:
            found.append((name, images, fitting[0], int(height * images.volumes[fitting[0]].shape[0])))
        elif same:
            cli.say(f"{images.folder} has no other subject with contrast {source.contrast!r}: left out")
        else:
            cli.say(f"{images.folder} has no other subject with another contrast than {source.contrast!r}: left out")
    return found


def map_image(
    name: str, net: PatchFeatureNet, source: Tensor, corners: Tensor, image: Tensor, grid: dict[str, Any]
) -> MappedImage:
    maps = {
        "UFLoss": feature_maps(net, source, corners, image, **grid),
        "SSIM": ssim_maps(source, corners, image, patch_size=net.patch_size, **grid),
    }
    matches = {
        measure: [tuple(best_match(values, stride=grid["stride"])) for values in of_measure]
        for measure, of_measure in maps.items()
    }
    arrays = {measure: values.cpu().numpy() for measure, values in maps.items()}
    return MappedImage(name, image.abs().cpu().numpy(), arrays, matches)  # type: ignore[arg-type]


def numbers_of(mapped: list[MappedImage], index: int, corner: tuple[int, int]) -> dict[str, Any]:
    """The best match in each image, and how far the map stands out: its mean and deviation."""
    rows = []
    for item in mapped:
        row: dict[str, Any] = {"image": item.name.replace("\n", ": ")}
        for measure, values in item.maps.items():
            best_row, best_col, value = item.matches[measure][index]
            row[measure] = {
                "best_corner": [best_row, best_col],
                "best": value,
                "mean": float(values[index].mean()),
                "std": float(values[index].std()),
            }
        rows.append(row)
    return {"corner": list(corner), "images": rows}


if __name__ == "__main__":
    cli.run(main)
