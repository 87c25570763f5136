"""A slice by several methods beside its reference: image, zoom and error map, figures 6 to 8 of the UFLoss paper.

    python fastmri_examples/figures/panels.py --reference DATA/multicoil_test --output figure_7.png \\
        --methods PICS=OUT/pics MoDL=RUN/reconstructions --feature_net NET --contrast CORPD_FBK

Folders hold leaderboard files, as every recipe's test writes them; --reference may hold fastMRI volumes instead.
Without --volume and --slice the slice with the most textured part is shown, of all volumes or of --contrast, with a
zoom on that part. Below each image stand NRMSE and SSIM of the slice (fastMRI's, with the volume's maximum as data
range) and, with --feature_net, UFLoss of magnitudes; a JSON file beside the picture has the numbers.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.panels import choose_slice, draw_panels, save_panels
from fastmri_ufloss.report.reconstructions import Reconstructions

REFERENCE = "reference"


def parse_methods(texts: Sequence[str]) -> dict[str, Path]:
    """Folders by name of NAME=FOLDER."""
    methods: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name.strip() and equals and folder):
            raise ValueError(f"--methods must be given as NAME=FOLDER, got {text!r}")
        if name in methods or name == REFERENCE:
            raise ValueError(f"--methods must have different names, and none {REFERENCE!r}, got {name!r}")
        methods[name] = Path(folder)
    return methods


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="folder of the fully sampled images")
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME=FOLDER", help="in the order of columns")
    figure_flags.add_output_arg(parser)
    parser.add_argument("--volume", help="its file name (default: the most textured)")
    parser.add_argument("--slice", type=int | None, help="counting from 0 (default: the most textured)")
    parser.add_argument("--contrast", help="fastMRI's attribute acquisition, of volumes to choose from")
    parser.add_argument("--title", help="(default: volume and slice)")
    parser.add_argument("--common", action="store_true", help="take the volumes that all folders have")
    text = "upper left corner and side of a square (default: the most textured)"
    parser.add_argument("--zoom", nargs=3, type=int, metavar=("ROW", "COL", "SIDE"), help=text)
    recipe.add_arguments(parser.add_argument_group("errors"), save_panels, ("error_gain",))
    figure_flags.add_score_args(parser)
    args = parser.parse_args()

    net = figure_flags.load_score_net(parser, args)
    data = Reconstructions(parse_methods(args.methods), {REFERENCE: args.reference}, common=args.common)
    volume, slice_num = choose_slice(data.volumes, args.volume, args.slice, contrast=args.contrast)
    place = f"{volume.name}, slice {slice_num}"
    title = place if args.title is None else args.title
    options = recipe.pick(args, ("zoom", "error_gain", "stride"))
    scores = draw_panels([args.output], volume, slice_num, title=title, net=net, **options)
    table = format_table([{"method": method, **of_method} for method, of_method in scores.items()])
    recipe.say(f"{table}\n{place}")
    numbers = {"volume": volume.name, "contrast": volume.contrast, "slice": slice_num, "scores": scores}
    figure_flags.finish(args.output, numbers)


if __name__ == "__main__":
    recipe.run(main)
