"""NRMSE, SSIM and UFLoss of several methods by contrast: figure 9 of the UFLoss paper, from the numbers of a report.

    python -m fastmri_ufloss.report RESULTS... --reference DATA/multicoil_test --feature_net NET --output_path OUT
    python fastmri_examples/figures/box_plots.py --report OUT/report.json --output figure_9.png

A dot is a subject, the mean over its volumes of a contrast, or with --unit slice, as in the paper, a slice, though
slices of one subject are not independent. The JSON file beside the picture has medians and quartiles.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.score_plots import choose_scores, quartiles, read_report, save_box_plots


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--report", type=Path, required=True, help="report.json of python -m fastmri_ufloss.report")
    figure_flags.add_output_arg(parser)
    text = "names or labels of the report's; UFLoss is that of each network"
    parser.add_argument("--metrics", nargs="+", default=["NRMSE", "SSIM", "UFLoss"], help=text)
    parser.add_argument("--reference", help="of the report's (default: its first)")
    parser.add_argument("--contrasts", nargs="+", help="of the report's (default: all)")
    parser.add_argument("--unit", choices=("subject", "slice"), default="subject", help="what a dot is")
    args = parser.parse_args()

    document = read_report(args.report)
    reference = document["references"][0] if args.reference is None else args.reference
    chosen = {"contrasts": args.contrasts, "by_slice": args.unit == "slice"}
    document = choose_scores(document, args.metrics, reference, **chosen)
    save_box_plots(args.output, document, reference=reference)
    rows = quartiles(document, args.unit)
    recipe.say(format_table(rows))
    numbers = {"report": str(args.report), "reference": reference, "unit": args.unit, "boxes": rows}
    figure_flags.finish(args.output, numbers)


if __name__ == "__main__":
    recipe.run(main)
