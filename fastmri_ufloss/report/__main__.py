"""Compare reconstructions of several methods: tables with statistics, and a page that shows them.

    python -m fastmri_ufloss.report RESULTS... --reference FOLDER --output_path OUT

RESULTS are folders of leaderboard files (data set 'reconstruction'), of this project or of others: NAME=FOLDER, or
FOLDER, which is named by itself; a folder without files stands for all its folders that have some. Volumes find each
other by their file names. Where sizes differ, all are cropped around their center to the smallest rows and columns,
as fastMRI crops images. (fastMRI's own evaluation also crops images that are not square.)

OUT gets report.html and figures/, report.json, and slices.csv, volumes.csv, means.csv and comparisons.csv; with a
segmenter pictures/VOLUME.png, too. Subjects are the unit of the statistics: the attribute patient_id of a volume, or
its file name. The scores of each volume are kept in OUT/cache: the same command goes on where it was stopped, and
scores only what has changed.
"""

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fastmri_ufloss.data.segmentation import QUIET_SECONDS
from fastmri_ufloss.models import PatchFeatureNet, load_segmenter
from fastmri_ufloss.models.feature_net import feature_net_path
from fastmri_ufloss.report.acquisitions import AcquiredVolume
from fastmri_ufloss.report.document import ALL, Comparison, folder_notes
from fastmri_ufloss.report.folders import method_folders, reference_folders, split_name
from fastmri_ufloss.report.page.html_page import write_report
from fastmri_ufloss.report.readers.answers import read_answers
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.report.scoring import COIL_COMBINED, FeatureNetFile, ScoreSettings, add_opinion, score_volumes
from fastmri_ufloss.report.table import format_comparisons, format_means, write_document

say = partial(print, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 if all is well, 1 if not, 130 if the command was interrupted."""
    args = _make_parser().parse_args(argv)
    try:
        _report(args)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("FASTMRI_UFLOSS_TRACEBACK"):
            raise
        print(f"error: {error}\n(FASTMRI_UFLOSS_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the volumes that are missing", file=sys.stderr)
        return 130
    return 0


def _report(args: argparse.Namespace) -> None:
    methods = method_folders(args.results)
    if COIL_COMBINED in methods:
        raise ValueError(f"{COIL_COMBINED!r} is the name of a reference: call the method otherwise, NAME=FOLDER")
    baseline = _check_choice("--baseline", args.baseline, methods)
    settings, data, sampling_notes = _prepare(args, methods)
    notes = [*folder_notes(data), *sampling_notes]
    for note in notes:
        say(note)
    say(f"{len(data)} volumes of {len({files.subject for files in data.volumes})} subjects")
    scored = score_volumes(data.volumes, settings, cache=args.output_path / "cache", num_workers=args.num_workers)
    if scored.failed and not args.common:
        reasons = list(scored.failed.values())
        raise ValueError(
            f"{len(reasons)} volumes could not be scored: {'; '.join(reasons[:5])}. The others are kept: mend these, "
            "or leave them out with --common"
        )
    if args.readers is not None:
        settings = replace(settings, criteria=add_opinion(scored.numbers, read_answers(args.readers)))
    asked = json.loads(json.dumps(vars(args), default=str))
    comparison = Comparison(data, settings, scored, baseline=baseline, title=args.title, notes=notes, asked=asked)
    document = comparison.document
    metrics = [f"SSIM ({settings.references[0]})", *(metric["name"] for metric in document["metrics"])]
    focus = _check_choice("--focus", args.focus, dict.fromkeys(metrics))
    write_document(args.output_path, document)
    _show(document, already=notes)
    if scored.num_cached:
        say(f"{scored.num_cached} of {len(data)} volumes were scored before")
    write_report(args.output_path, comparison, focus=focus, num_cases=args.num_cases)
    say(f"Report: {args.output_path / 'report.html'}")


def _prepare(args: argparse.Namespace, methods: dict[str, Path]) -> tuple[ScoreSettings, Reconstructions, list[str]]:
    """What is scored and how, checked before anything is read at length, and notes on the k-space."""
    for given, other in (("segmenter", "segmentations"), ("segmentations", "segmenter"), ("masks", "kspace")):
        if getattr(args, given) is not None and getattr(args, other) is None:
            raise ValueError(f"--{given} needs --{other}")
    references = reference_folders(args.reference)
    if not references and args.kspace is None:
        raise ValueError(
            "there is no reference: name a folder of fully sampled images with --reference, such as "
            "DATA/multicoil_test, or fully sampled volumes with --kspace"
        )
    nets = _parse_networks(args.feature_net, args.trained_on, with_kspace=args.kspace is not None)
    if args.stride is not None and not nets:
        raise ValueError("--stride is for UFLoss, whose network --feature_net names")
    if args.segmenter is not None:
        load_segmenter(args.segmenter)  # raises, now and not once for each volume
    more = {name: getattr(args, name) for name in ("segmentations", "kspace", "masks", "common")}
    data = Reconstructions(methods, references, **more)
    names, notes = tuple(references), []
    if args.kspace is not None and COIL_COMBINED not in references:
        undersampled = _find_undersampled(data, common=args.common)
        if undersampled is None:
            names = (*names, COIL_COMBINED)
        elif names:
            notes.append(f"There is no reference {COIL_COMBINED}, since {undersampled} is undersampled.")
        else:
            raise ValueError(
                f"{undersampled} is undersampled, so that it gives no reference: name a folder of fully sampled "
                "images with --reference"
            )
    device, pictures = "cuda" if torch.cuda.is_available() else "cpu", args.output_path / "pictures"
    return ScoreSettings(names, nets, args.segmenter, args.stride, device, pictures), data, notes


def _find_undersampled(data: Reconstructions, *, common: bool) -> Path | None:
    """The first k-space that is not fully sampled, so that there is no coil-combined reference."""
    for files in tqdm(data.volumes, desc="Sampling", unit="volume", delay=QUIET_SECONDS):
        try:
            if files.kspace is not None and not AcquiredVolume(files.kspace).is_fully_sampled:
                return files.kspace
        except ValueError:  # the volume is left out when it is scored
            if not common:
                raise
    return None


def _parse_networks(
    scoring: Sequence[str], trained_on: Sequence[str], *, with_kspace: bool
) -> tuple[FeatureNetFile, ...]:
    """The feature networks of UFLoss: those to score with, then those that a method was trained with.

    A single network of each kind needs no name; of several, each is called by its name, or else by its folder. A
    network that is named for both, by any name, has been trained with.
    """
    texts = (("--trained_on", trained_on), ("--feature_net", scoring))
    trained, scored = ([split_name(flag, text) for text in given] for flag, given in texts)
    trained, scored = ([(name, feature_net_path(path)) for name, path in nets] for nets in (trained, scored))
    trained_files = {path.read_bytes() for _, path in trained if path.is_file()}
    scored = [(n, path) for n, path in scored if not path.is_file() or path.read_bytes() not in trained_files]
    nets: dict[str, FeatureNetFile] = {}
    for given, is_trained in ((scored, False), (trained, True)):
        for name, path in given:
            chans = int(PatchFeatureNet.load(path).in_chans)
            if chans == 2 and not with_kspace:
                raise ValueError(
                    f"{path} is a feature network of in_chans 2, of complex images, and magnitudes have no phase: "
                    "give --kspace, or a network of in_chans 1"
                )
            if not name and len(given) > 1:  # the networks of all runs have one file name
                name = path.resolve().parent.name if path.stem == "feature_net" else path.stem
            net = FeatureNetFile(path, chans, name, is_trained)
            if net.metric in nets:
                raise ValueError(f"two feature networks would both be {net.metric!r}: name them with NAME=FILE")
            nets[net.metric] = net
    return tuple(nets.values())


def _check_choice(flag: str, value: str | None, choices: Collection[str]) -> str:
    """The value, or the first choice if there is none."""
    if value is None:
        return next(iter(choices))
    if value not in choices:
        raise ValueError(f"{flag} must be one of {', '.join(choices)}; got {value!r}")
    return value


def _show(document: dict[str, Any], *, already: Sequence[str]) -> None:
    """Tables and notes on the terminal."""
    for contrast in document["contrasts"]:
        what = "" if contrast == ALL else f" of {contrast}"
        say(f"\nMeans{what} ± standard deviation over subjects:\n{format_means(document, contrast)}")
        if any(row["contrast"] == contrast for row in document["comparisons"]):
            say(
                f"\nDifferences{what} from {document['baseline']}, paired by subject, Wilcoxon's p, "
                f"Holm over all rows:\n{format_comparisons(document, contrast)}"
            )
    say()
    for note in document["notes"]:
        if note not in already:
            say(note)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastmri_ufloss.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("results", nargs="+", metavar="RESULTS", help="[NAME=]FOLDER of reconstructions")
    words = "fully sampled images: leaderboard files, or fastMRI volumes (called RSS); the first one is tested"
    add("--reference", nargs="+", default=[], metavar="[NAME=]FOLDER", help=words)
    add("--output_path", type=Path, required=True, metavar="OUT", help="folder of the report")
    add("--title", default="Comparison of reconstructions", help="of the page")
    add("--baseline", metavar="NAME", help="method to compare with (default: the first)")
    add("--focus", metavar="METRIC", help="score that chooses the cases (default: SSIM)")
    add("--num_cases", type=int, default=12, metavar="N", help="slices to show (default: %(default)s)")
    add("--common", action="store_true", help="leave out volumes that not all folders have, or that cannot be read")
    add("--num_workers", type=int, default=1, metavar="N", help="volumes at once (default: %(default)s)")
    add = parser.add_argument_group("what was acquired").add_argument
    words = f"fastMRI volumes: for the residual, complex images and, if fully sampled, a reference {COIL_COMBINED}"
    add("--kspace", type=Path, metavar="FOLDER", help=words)
    words = "files with a data set 'mask', where neither k-space nor reconstructions tell how they were sampled"
    add("--masks", type=Path, metavar="FOLDER", help=words)
    add = parser.add_argument_group("networks").add_argument
    add("--feature_net", nargs="+", default=[], metavar="[NAME=]FILE", help="networks of UFLoss")
    words = "feature networks that a method was trained with: shown, and not tested"
    add("--trained_on", nargs="+", default=[], metavar="[NAME=]FILE", help=words)
    add("--stride", type=int, metavar="N", help="of the patches of UFLoss (default: the network's)")
    add("--segmenter", type=Path, help="checkpoint of train_segmentation.py")
    add("--segmentations", type=Path, metavar="FOLDER", help="volumes with a data set 'segmentation'")
    words = "answers.json of fastmri_ufloss.report.readers: opinion scores beside the others"
    parser.add_argument("--readers", type=Path, metavar="FILE", help=words)
    return parser


if __name__ == "__main__":
    sys.exit(main())
