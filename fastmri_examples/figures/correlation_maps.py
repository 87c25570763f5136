"""Figures 5B, S1 and S2 of the UFLoss paper: where a patch finds its like, by features and by SSIM.

    python fastmri_examples/figures/correlation_maps.py --feature_net FILE --data_path FOLDER --output figure_5b.png

Source patches of an image are compared with all patches on a grid of (1) the same image, (2) an image of another
subject with the same contrast, (3) an image of another subject with another contrast (attribute ``acquisition``), and
(4) an image of --other_data_path, such as another anatomy. What the data do not have is left out, and said. The maps
of SSIM beside those of the features are of the magnitudes. A second picture, *_best.*, shows the best patch of each
image by either measure (figure S2). The JSON file has the places and the values.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import feature_figures

from fastmri_ufloss.report.figures.correlation_maps import NUM_PATCHES, draw_correlation_maps


def main() -> None:
    parser = cli.make_parser(str(__doc__))
    group = feature_figures.add_image_args(parser)
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
    cli.add_arguments_of(group, draw_correlation_maps, ("stride", "chunk_size"))
    args = parser.parse_args()

    net, data_path = feature_figures.load_network_and_data(args)
    images = feature_figures.open_images(data_path, net, args.challenge)
    others = args.other_data_path
    numbers, pictures, missing = draw_correlation_maps(
        args.output,
        images,
        images.place(args.volume, args.slice),
        corners=getattr(args, "patch", None),
        others=None if others is None else feature_figures.open_images(others, net, args.challenge),
        **cli.typed(args, ("stride", "chunk_size")),
    )
    for what in missing:
        cli.say(f"{images.folder} has no {what}: left out")
    feature_figures.finish(args.output, net, numbers, *pictures[1:])


if __name__ == "__main__":
    cli.run(main)
