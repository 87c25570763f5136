"""Figures 5B, S1 and S2 of the UFLoss paper: where a patch finds its like, by features and by SSIM.

    python fastmri_examples/figures/correlation_maps.py --feature_net FILE --data_path FOLDER --output figure_5b.png

Source patches of an image are compared with all patches on a grid of (1) the same image, (2) an image of another
subject with the same contrast, (3) an image of another contrast (attribute ``acquisition``), and (4) an image of
--other_data_path, such as another anatomy; what the data lack is left out, and said. The maps of SSIM are of
magnitudes. A second picture, *_best.*, shows the best patch of each image by either measure (figure S2).
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report.figures.retrieval import NUM_PATCHES, draw_correlation_maps

GRID_ARGS = ("stride", "chunk_size")


def integer(value: Any) -> Any:
    """A number as it is typed, or the numbers of a config file."""
    return list(map(int, value)) if isinstance(value, list) else int(value)


def main() -> None:
    parser = recipe.make_parser(__doc__)
    group = figure_flags.add_image_args(parser)
    group.add_argument("--other_data_path", type=Path | None, help="folder with images of another kind")
    group.add_argument("--volume", help="file name of the source (default: the first of the folder)")
    group.add_argument("--slice", type=int | None, help="of the source (default: the middle one)")
    text = f"upper left corner of a source patch, up to 4 (default: the {NUM_PATCHES} most textured)"
    group.add_argument("--patch", nargs=2, type=integer, action="append", metavar=("ROW", "COL"), help=text)
    recipe.add_arguments(group, draw_correlation_maps, GRID_ARGS)
    args = parser.parse_args()

    net, _, images = figure_flags.load_network_and_images(args)
    others = args.other_data_path
    numbers, pictures, missing = draw_correlation_maps(
        args.output,
        images,
        images.place(args.volume, args.slice),
        corners=args.patch,
        others=None if others is None else figure_flags.open_images(others, net, args.challenge),
        **recipe.pick(args, GRID_ARGS),
    )
    for what in missing:
        recipe.say(f"{images.folder} has no {what}: left out")
    figure_flags.finish(args.output, numbers, *pictures[1:], net=net)


if __name__ == "__main__":
    recipe.run(main)
