"""A blinded reader study: pages for readers, their answers, opinion scores.

    python -m fastmri_ufloss.report.readers make    --output_path STUDY --readers ann ben MoDL=RUN/reconstructions ...
    python -m fastmri_ufloss.report.readers analyze --key STUDY/key.json --output_path OUT answers_ann.json ...

``make`` writes STUDY/reader_NAME.html for each reader, a file that works offline and has no trace of methods, files
and subjects, and key.json, which stays with you. A reader opens the page, answers by keys, and sends back the file
that the page saves. ``collect`` checks and merges these files, ``analyze`` does so too and makes tables and a figure:
mean opinion scores, paired tests, agreement, and how well the scores of a report go with them. A report shows the
scores with ``python -m fastmri_ufloss.report ... --readers OUT/answers.json``.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from fastmri_ufloss.files import atomic_path, write_json
from fastmri_ufloss.report.figures.score_plots import read_report
from fastmri_ufloss.report.folders import method_folders, reference_folders
from fastmri_ufloss.report.readers.analysis import analyze
from fastmri_ufloss.report.readers.answers import collect, read_key
from fastmri_ufloss.report.readers.plots import save_opinion
from fastmri_ufloss.report.readers.study import CRITERION, StudySettings, choose_slices, make_study
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.report.table import format_table

TABLES = ("opinion", "comparisons", "strengths", "agreement", "correlations")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    args = _make_parser().parse_args(argv)
    try:
        args.call(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _make(args: argparse.Namespace) -> None:
    references = reference_folders(args.reference[:1])
    data = Reconstructions(method_folders(args.results), references, segmentations=args.segmentations)
    names = ("title", "protocol", "beside", "repeats", "break_every", "seed")
    settings = StudySettings(
        tuple(args.readers), criteria=tuple(args.criteria), **{name: getattr(args, name) for name in names}
    )
    places = choose_slices(data, args.slices)
    pages = make_study(data, args.output_path, settings, places)
    size = pages[0].stat().st_size / 2**20
    print(f"{len(places)} slices of {len(data)} volumes; {size:.1f} MB a page")
    print(*pages, f"Key, not for readers: {args.output_path / 'key.json'}", sep="\n")


def _collect(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    key = read_key(args.key)
    rows = collect(key, args.answers, incomplete=args.incomplete)
    document = {"key": {name: key[name] for name in ("study", "protocol", "criteria", "methods")}, "answers": rows}
    write_json(args.output_path / "answers.json", document)
    readers = sorted({row["reader"] for row in rows})
    print(
        f"{len(rows)} answers of {len(readers)} readers ({', '.join(readers)}): {args.output_path / 'answers.json'}"
    )
    return key, rows


def _analyze(args: argparse.Namespace) -> None:
    report = None if args.report is None else read_report(args.report)
    key, rows = _collect(args)
    document = analyze(key, rows, baseline=args.baseline, report=report)
    write_json(args.output_path / "readers.json", document)
    for name in TABLES:
        if document[name]:
            print(f"\n{name}\n{format_table(document[name])}")
            with atomic_path(args.output_path / f"{name}.csv") as path, open(path, "w", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(document[name][0]))
                writer.writeheader()
                writer.writerows(document[name])
    print(*document["notes"], sep="\n")
    for suffix in (".png", ".pdf"):
        save_opinion(args.output_path / f"opinion{suffix}", document, key, rows)
    print(f"Tables and figure: {args.output_path}")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastmri_ufloss.report.readers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="make, collect or analyze")
    make = commands.add_parser("make", help="the pages of a study and its key")
    add = make.add_argument
    add("results", nargs="+", metavar="RESULTS", help="[NAME=]FOLDER of reconstructions")
    add("--output_path", type=Path, required=True, metavar="STUDY")
    add("--readers", nargs="+", required=True, metavar="NAME", help="a page for each")
    words = "fully sampled images, which are rated like a method"
    add("--reference", nargs=1, default=[], metavar="[NAME=]FOLDER", help=words)
    add("--beside", action="store_true", help="show the reference beside each image, and do not rate it")
    add("--protocol", choices=("rating", "pairs"), default="rating", help="1 to 4, or which of two is better")
    words = "what is rated, such as sharpness, artifacts, 'visibility of the meniscus'"
    add("--criteria", nargs="+", default=[CRITERION], metavar="TEXT", help=f"{words} (default: {CRITERION})")
    words = "all, segmented, every:N or different:K, those in which methods differ most (default: %(default)s)"
    add("--slices", default="all", metavar="RULE", help=words)
    add("--segmentations", type=Path, metavar="FOLDER", help="volumes with a data set 'segmentation'")
    add("--repeats", type=int, default=0, metavar="N", help="images that are shown twice (default: %(default)s)")
    add("--title", default="Image quality", help="of the page")
    add("--break_every", type=int, default=50, metavar="N", help="images (default: %(default)s)")
    add("--seed", type=int, default=0, help="of orders and identifiers")
    make.set_defaults(call=_make)
    for name, call, words in (
        ("collect", _collect, "check and merge the readers' files"),
        ("analyze", _analyze, "collect, then tables and a figure"),
    ):
        command = commands.add_parser(name, help=words)
        add = command.add_argument
        add("answers", nargs="+", type=Path, metavar="ANSWERS", help="files that the pages saved")
        add("--key", type=Path, required=True, help="key.json of the study")
        add("--output_path", type=Path, required=True, metavar="OUT")
        add("--incomplete", action="store_true", help="take what is there of unfinished files, and missing readers")
        if call is _analyze:
            add("--baseline", metavar="NAME", help="method to compare with (default: the first)")
            add(
                "--report",
                type=Path,
                metavar="FILE",
                help="report.json whose scores are correlated with the readers'",
            )
        command.set_defaults(call=call)
    return parser


if __name__ == "__main__":
    sys.exit(main())
