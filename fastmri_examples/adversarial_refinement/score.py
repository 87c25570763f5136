"""Compare reconstructions of several methods with each other, also by what a segmentation network finds in them.

    python fastmri_examples/adversarial_refinement/score.py --reference RUN/stages/reference --baseline RecNet \\
        --methods zero-filled=RUN/stages/zero_filled RecNet=RUN/stages/reconstruction refined=RUN/reconstructions \\
        --segmentations DATA/singlecoil_val --segmenter SEGMENTER.ckpt --output_path OUT

Folders hold leaderboard files, as every recipe's test writes them; --reference may hold fastMRI volumes instead.
Volumes find each other by their file names. Where sizes differ, images and segmentations are cropped around their
centre to the smallest rows and columns, as fastMRI crops images. PSNR, SSIM and NRMSE are those of volumes;
--feature_net adds UFLoss of magnitudes, --segmenter (a checkpoint of train_segmentation.py) the Dice of each class
and SIS, which is relative to the segmenter's own Dice on the references. The unit of the statistics is the subject:
the attribute patient_id of a volume, or its file name. OUT gets scores.json and pictures/VOLUME.png.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastmri.evaluate import psnr
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import feature_network

from fastmri_ufloss.data.reconstructions import ReconstructedVolume, Reconstructions
from fastmri_ufloss.metrics import UFLossMetric
from fastmri_ufloss.metrics.method_scores import MethodScores
from fastmri_ufloss.pl_modules import load_segmenter
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.pl_modules.segmentation_module import dice_of_classes
from fastmri_ufloss.report import format_table, save_contours, save_picture
from fastmri_ufloss.report.paired_table import ALPHA, p_value_note
from fastmri_ufloss.report.subject_tables import comparison_rows, mean_rows, scores_by_subject

MIN_DICE = 0.5  # of a segmenter on the references


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--reference", type=Path, required=True, help="folder of the fully sampled images")
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME=FOLDER", help="what is to be compared")
    parser.add_argument("--output_path", type=Path, required=True, help="folder of the results")
    parser.add_argument("--baseline", default=None, help="method to compare the others with (default: the first)")
    parser.add_argument("--segmenter", type=Path, default=None, help="checkpoint of train_segmentation.py")
    parser.add_argument(
        "--segmentations", type=Path, default=None, help="folder of volumes with a data set 'segmentation'"
    )
    parser.add_argument("--feature_net", type=Path, default=None, help="of magnitudes, for UFLoss")
    cli.add_arguments_of(parser, UFLossMetric, ("stride",))
    parser.add_argument(
        "--common", action="store_true", default=False, help="score the volumes that all folders have"
    )
    return parser


def parse_methods(texts: Sequence[str]) -> dict[str, Path]:
    """Folders by name of NAME=FOLDER."""
    methods: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name.strip() and equals and folder):
            raise ValueError(f"--methods must be given as NAME=FOLDER, got {text!r}")
        if name in methods:
            raise ValueError(f"--methods must have different names, got {name!r} twice")
        methods[name] = Path(folder)
    return methods


def main() -> None:
    args = make_arguments().parse_args()
    methods = parse_methods(args.methods)
    baseline = args.baseline if args.baseline is not None else next(iter(methods))
    if baseline not in methods:
        raise ValueError(f"--baseline must be one of {', '.join(methods)}, got {baseline!r}")
    for given, other in (("segmenter", "segmentations"), ("segmentations", "segmenter")):
        if getattr(args, given) is not None and getattr(args, other) is None:
            raise ValueError(f"--{given} needs --{other}: Dice and SIS compare what the one finds with the other")
    data = Reconstructions(args.reference, methods, segmentations=args.segmentations, common=args.common)
    scores = make_scores(args, data)
    say_what_is_scored(data)
    for name in tqdm(data.names, desc="Scores", unit="volume"):
        volume = data.read(name)
        labels = scores.add(name, volume.reference, volume.outputs, segmentation=volume.segmentation)
        save_slice(args.output_path / "pictures" / f"{Path(name).stem}.png", name, volume, labels)
    report(data, scores, baseline, args.output_path)


def make_scores(args: argparse.Namespace, data: Reconstructions) -> MethodScores:
    """The scores that the flags ask for, with their networks."""
    options: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    if args.feature_net is not None:
        net = feature_network.load(args.feature_net, in_chans=1)
        options["make_ufloss"] = partial(UFLossMetric, net, **cli.typed(args, ("stride",)))
    elif hasattr(args, "stride"):
        raise ValueError("--stride is for UFLoss, whose network --feature_net names")
    if args.segmenter is not None:
        segmenter = load_segmenter(args.segmenter)
        classes = check_classes(data.classes, segmenter.num_classes, args.segmentations)
        options |= {"segmenter": segmenter, "num_classes": segmenter.num_classes, "classes": classes}
    return MethodScores(data.methods, **options)


def check_classes(found: Sequence[int], num_classes: int, folder: Path) -> Sequence[int]:
    """The classes of the volumes, which the segmenter must know."""
    if not found:
        raise ValueError(f"the segmentations of {folder} must have a class in an image, got nothing but background")
    if not 0 < found[0] <= found[-1] < num_classes:
        raise ValueError(
            f"the segmentations of {folder} must have the segmenter's classes 0 .. {num_classes - 1}, got "
            f"{', '.join(map(str, found))}"
        )
    absent = [str(number) for number in range(1, num_classes) if number not in found]
    if absent:
        cli.say(f"Left out, since no image has it: class {', '.join(absent)}")
    return found


def say_what_is_scored(data: Reconstructions) -> None:
    if data.num_left_out:
        cli.say(f"--common: {data.num_left_out} volumes that not all folders have are left out")
    if data.cropped:
        name, sizes = next(iter(data.cropped.items()))
        cli.say(f"{len(data.cropped)} volumes are cropped around their centre, such as {name}: {sizes}")
    identifiers = set(data.patient_ids.values())
    if len(data) > 1 and len(identifiers) == 1 and "" not in identifiers:
        cli.say("All volumes have one patient_id: each of them counts as a subject of its own")
    cli.say(f"{len(data)} volumes of {len(set(data.subjects.values()))} subjects")


def save_slice(path: Path, name: str, volume: ReconstructedVolume, labels: Mapping[str, np.ndarray]) -> None:
    """The slice with the largest segmented area, with contours; without segmentations the middle one."""
    if volume.segmentation is None:
        middle = len(volume.reference) // 2
        save_picture(path, volume.reference[middle], {m: images[middle] for m, images in volume.outputs.items()})
        return
    areas = (volume.segmentation > 0).sum(axis=(1, 2))
    number = int(areas.argmax()) if areas.any() else len(areas) // 2
    truth = volume.segmentation[number]
    predictions = {source: found[number] for source, found in labels.items()}
    images = {"reference": volume.reference[number], **{m: x[number] for m, x in volume.outputs.items()}}
    notes = {}
    for source, image in images.items():
        texts = []
        if source != "reference":
            with np.errstate(divide="ignore"):  # of equal images
                texts.append(f"PSNR {float(psnr(images['reference'], image, maxval=volume.reference.max())):.1f} dB")
        if areas.any():
            texts.append(f"Dice {mean_dice(predictions[source], truth):.2f}")
        notes[source] = ", ".join(texts)
    title = f"{name}, slice {number}"
    save_contours(path, images, truth=truth, predictions=predictions, notes=notes, title=title)


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    """Dice of a slice, the mean over the classes that it has."""
    num_classes = 1 + int(max(labels.max(), truth.max()))
    dice = dice_of_classes(torch.from_numpy(labels)[None], torch.from_numpy(truth)[None], num_classes)
    return float(dice.nanmean())


def report(data: Reconstructions, scores: MethodScores, baseline: str, output_path: Path) -> None:
    """Means over subjects and differences from the baseline, on the terminal and in ``scores.json``."""
    failed = []
    try:
        rows = scores.rows()
    except ValueError as error:  # of a segmenter that finds nothing: the other scores are not lost for it
        failed = [f"Dice and SIS are left out: {error}"]
        scores.leave_out_segmentation()
        rows = scores.rows()
    subjects = data.subjects
    larger_is_better = scores.larger_is_better
    by_subject = scores_by_subject(rows, list(larger_is_better), subjects)
    means = mean_rows(by_subject, known={"SIS": scores.sis(subjects)})
    # Dice of a single class is SIS but for a constant: it would be tested twice
    tested = {m: larger for m, larger in larger_is_better.items() if len(scores.classes) > 1 or m[:4] != "Dice"}
    comparisons = comparison_rows(by_subject, tested, baseline=baseline)
    weak = [
        f"The segmenter has a Dice of only {dice:.2f} on the references for class {number}: SIS says little of it"
        for number, dice in scores.segmenter_dice().items()
        if dice < MIN_DICE
    ]
    notes = failed + weak + find_notes(by_subject, baseline, sum(row["p"] is not None for row in comparisons))
    document = {
        "baseline": baseline,
        "segmenter_dice": scores.segmenter_dice(),
        "means": means,
        "comparisons": comparisons,
        "notes": notes,
        "volumes": [{"subject": subjects[row["volume"]], **plain(row)} for row in rows],
    }
    write_json(output_path / "scores.json", document)
    if scores.segmenter_dice():
        dice = ", ".join(f"{value:.4f} of class {number}" for number, value in scores.segmenter_dice().items())
        cli.say(f"\nThe segmenter's own Dice on the references: {dice}")
    cli.say("\nMeans over subjects, and their 95% intervals by bootstrap; SIS is over all images:")
    cli.say(format_table(means_table(means, data.methods)))
    if comparisons:
        shown = [{name: "-" if value is None else value for name, value in row.items()} for row in comparisons]
        cli.say(f"\nDifferences from {baseline}, paired by subject, Holm over all rows:\n{format_table(shown)}")
    for note in notes:
        cli.say(note)
    cli.say(f"Scores: {output_path / 'scores.json'}\nPictures: {output_path / 'pictures'}")


def find_notes(
    by_subject: Mapping[str, Mapping[str, Mapping[str, float]]], baseline: str, num_tests: int
) -> list[str]:
    """What is to be said of the comparisons, each once."""
    notes = []
    for metric, methods in by_subject.items():
        count = len(methods[baseline])
        if count < 2:
            notes.append(f"{metric}: a single subject, so there are means, but no interval and no test.")
        elif len(methods) > 1:
            smallest = min(1.0, num_tests * 2.0 ** (1 - count))  # all differences have one sign
            holm = f"Of {num_tests} comparisons of {count} subjects none can have a p (Holm) below {smallest:.2g}."
            notes.append(p_value_note(count) or (holm if smallest > ALPHA else ""))
        for method, values in methods.items():
            if not np.isfinite(list(values.values())).all():
                notes.append(f"{metric} of {method} is infinite: it equals the reference, and is not compared.")
    return [note for note in dict.fromkeys(notes) if note]


def means_table(means: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[dict[str, str]]:
    """A row for each method, a column for each score."""
    table: dict[str, dict[str, str]] = {method: {"method": method} for method in methods}
    for row in means:
        mean, low, high = (row[name] for name in ("mean", "95% from", "95% to"))
        interval = "" if low is None else f" ({low:.4g} to {high:.4g})"
        table[row["method"]][row["metric"]] = "-" if mean is None else f"{mean:.4g}{interval}"
    return list(table.values())


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON, where what is infinite is null."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


if __name__ == "__main__":
    cli.run(main)
