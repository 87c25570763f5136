"""A slice by several methods beside its reference: image, zoom and error map, figures 6 to 8 of the UFLoss paper.

    python fastmri_examples/figures/panels.py --reference DATA/multicoil_test --output figure_7.png \\
        --methods PICS=OUT/pics MoDL=RUN/reconstructions --feature_net NET --contrast CORPD_FBK

Folders hold leaderboard files, as every recipe's test writes them; --reference may hold fastMRI volumes instead.
Without --volume and --slice it is the slice with the most textured part, of all volumes or those of --contrast; the
zoom is that part. Below each image stand NRMSE and SSIM of the slice (fastMRI's, with the maximum of the volume as
data range) and, with --feature_net, a network of magnitudes, UFLoss. A JSON file beside the picture has the numbers.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
from feature_figures import load_magnitude_net

from fastmri_ufloss.files import write_json
from fastmri_ufloss.metrics import UFLossMetric
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
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--reference", type=Path, required=True, help="folder of the fully sampled images")
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME=FOLDER", help="in the order of columns")
    parser.add_argument(
        "--output", type=Path, required=True, help="a PNG or PDF; the numbers go to a JSON file beside it"
    )
    parser.add_argument("--volume", default=None, help="its file name (default: the most textured)")
    parser.add_argument("--slice", type=int, default=None, help="counting from 0 (default: the most textured)")
    parser.add_argument("--contrast", default=None, help="fastMRI's attribute acquisition, of volumes to choose from")
    parser.add_argument("--feature_net", type=Path, default=None, help="of magnitudes, for UFLoss")
    parser.add_argument("--title", default=None, help="(default: volume and slice)")
    parser.add_argument("--common", action="store_true", default=False, help="take the volumes that all folders have")
    parser.add_argument(
        "--zoom",
        nargs=3,
        type=int,
        metavar=("ROW", "COL", "SIDE"),
        help="upper left corner and side of a square (default: the most textured)",
    )
    cli.add_arguments_of(parser, save_panels, ("error_gain",))
    cli.add_arguments_of(parser, UFLossMetric, ("stride",))
    args = parser.parse_args()

    if hasattr(args, "stride") and args.feature_net is None:
        raise ValueError("--stride is for UFLoss, whose network --feature_net names")
    net = None if args.feature_net is None else load_magnitude_net(args.feature_net)
    data = Reconstructions(parse_methods(args.methods), {REFERENCE: args.reference}, common=args.common)
    volume, number = choose_slice(data.volumes, args.volume, args.slice, contrast=args.contrast)
    place = f"{volume.name}, slice {number}"
    title = place if args.title is None else args.title
    scores = draw_panels(
        [args.output], volume, number, title=title, net=net, **cli.typed(args, ("zoom", "error_gain", "stride"))
    )
    document = {"volume": volume.name, "contrast": volume.contrast, "slice": number, "scores": scores}
    write_json(args.output.with_suffix(".json"), document)
    table = format_table([{"method": method, **of_method} for method, of_method in scores.items()])
    cli.say(f"{table}\n{place}\nPicture: {args.output}\nNumbers: {args.output.with_suffix('.json')}")


if __name__ == "__main__":
    cli.run(main)
