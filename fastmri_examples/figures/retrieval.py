"""Figure 5A of the UFLoss paper: for some patches the nearest and the farthest ones of a bank, by their features.

    python fastmri_examples/figures/retrieval.py --feature_net FILE --data_path FOLDER --output figure_5a.png

FOLDER has {challenge}_test, whose patches are looked up, and {challenge}_train, the bank; or --data_path and
--bank_path name two folders, or one folder is both. The bank holds --bank_size patches at random places, the same
number of each slice, without the query's own subject, and is kept in --cache_dir: the same command goes on where it
was, and the next figure takes seconds. The JSON file has all places and inner products.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report.figures.retrieval import build_bank, look_up, save_retrieval, textured_queries


def main() -> None:
    parser = recipe.make_parser(__doc__)
    group = figure_flags.add_image_args(parser)
    text = "folder of the bank (default: {challenge}_train of --data_path)"
    group.add_argument("--bank_path", type=Path | None, help=text)
    group.add_argument("--bank_size", type=int, default=4096, help="patches; the paper has 409600")
    group.add_argument("--cache_dir", type=Path | None, help="of the bank (default: beside the picture)")
    group.add_argument("--num_queries", type=int, default=4, help="each of another slice")
    text = "a patch by its upper left corner; may be repeated (default: textured patches)"
    group.add_argument("--query", nargs=4, action="append", metavar=("VOLUME", "SLICE", "ROW", "COL"), help=text)
    group.add_argument("--num_found", type=int, default=4, help="nearest and farthest patches each")
    group.add_argument("--seed", type=int, default=0, help="of the places of the bank")
    args = parser.parse_args()

    net, data_path, images = figure_flags.load_network_and_images(args)
    others = figure_flags.open_images(args.bank_path or data_path, net, args.challenge, split="train")
    if args.query:
        try:
            queries = [(images.place(name, int(n)), (int(row), int(col))) for name, n, row, col in args.query]
        except ValueError as error:
            raise ValueError(f"--query must be VOLUME SLICE ROW COL: {error}") from None
    else:
        queries = textured_queries(images, args.num_queries)
    cache = args.output.parent / "cache" if args.cache_dir is None else args.cache_dir
    start = time.perf_counter()
    bank = build_bank(others, size=args.bank_size, seed=args.seed, cache_dir=cache / "features")
    built = time.perf_counter()
    results = look_up(images, queries, bank, others, count=args.num_found)
    seconds = {"bank": built - start, "search": time.perf_counter() - built}
    save_retrieval(args.output, results, images, others)
    recipe.say(
        f"{len(results)} queries in a bank of {len(bank.features)} patches: {seconds['bank']:.1f} s for the bank, "
        f"{seconds['search']:.2f} s for the search"
    )
    numbers = {"bank_size": len(bank.features), "seed": args.seed, "queries": results, "seconds": seconds}
    figure_flags.finish(args.output, numbers, net=net)


if __name__ == "__main__":
    recipe.run(main)
