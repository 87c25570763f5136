"""What is to be said of the data of a comparison, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.files import name_some
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.report.scores.score_settings import ScoreSettings
from fastmri_ufloss.report.scores.scoring import NOT_FINITE
from fastmri_ufloss.report.scores.segmentation_rows import SegmentationRows

__all__ = ["data_notes", "folder_notes"]

MIN_DICE = 0.5  # of a segmenter on the references
Numbers = Mapping[str, Mapping[str, Any]]


def folder_notes(data: Reconstructions) -> list[str]:
    """What the files say before they are scored."""
    notes = []
    if left_out := sorted({row["volume"] for row in data.left_out}):
        notes.append(
            f"{len(left_out)} volumes that not all folders have, or that cannot be used, are left out: "
            f"{name_some(left_out)}."
        )
    if data.cropped:
        name, sizes = next(iter(data.cropped.items()))
        notes.append(f"{len(data.cropped)} volumes are cropped around their center, such as {name}: {sizes}.")
    identifiers = set(data.patient_ids.values())
    if len(data) > 1 and len(identifiers) == 1 and "" not in identifiers:
        notes.append("All volumes have one patient_id: each of them counts as a subject of its own.")
    return notes


def data_notes(
    numbers: Numbers,
    excluded: Sequence[Mapping[str, Any]],
    settings: ScoreSettings,
    segmented: SegmentationRows,
    num_volumes: int,
) -> list[str]:
    """What the scores say of the data.

    Args:
        numbers: what `fastmri_ufloss.report.scores.scoring.score_files` gives, by the name of the volume.
        excluded: rows of the document.
        settings: of the scores.
        segmented: Dice of all slices.
        num_volumes: that were asked for.
    """
    notes = [*_excluded_notes(excluded, numbers, num_volumes), *_constant_notes(numbers, settings)]
    differing = {name: of["differing_masks"] for name, of in numbers.items() if of["differing_masks"]}
    if differing:
        name, methods = next(iter(differing.items()))
        notes.append(
            f"Methods were reconstructed from different samples: the masks of {len(differing)} volumes differ, such "
            f"as {name} ({', '.join(methods)}). Their differences are not those of the methods alone."
        )
    if settings.feature_nets and all(net.trained_on for net in settings.feature_nets):
        notes.append(
            "UFLoss is that of the network that a method was trained with, and is not tested: a loss must not grade "
            "itself. Name another network to score with."
        )
    return [*notes, *_segmenter_notes(segmented), *_reference_notes(numbers)]


def _excluded_notes(excluded: Sequence[Mapping[str, Any]], numbers: Numbers, num_volumes: int) -> list[str]:
    notes = []
    bad = [row for row in excluded if row["slice"] is not None and row["why"] == NOT_FINITE]
    if bad:
        slices = {(row["volume"], row["slice"]) for row in bad}
        volumes = sorted({name for name, _ in slices})
        sources = ", ".join(dict.fromkeys(row["source"] for row in bad))
        notes.append(
            f"{len(slices)} slices of {len(volumes)} volumes have {NOT_FINITE} (of {sources}) and are excluded for "
            f"all methods: {name_some(volumes)}."
        )
    if empty := [name for name, of_volume in numbers.items() if not of_volume["volumes"]]:
        notes.append(f"{len(empty)} of {num_volumes} volumes are excluded as a whole: {name_some(empty)}.")
    if failed := num_volumes - len(numbers):
        notes.append(f"{failed} of {num_volumes} volumes could not be scored and are left out.")
    return notes


def _constant_notes(numbers: Numbers, settings: ScoreSettings) -> list[str]:
    places: dict[str, list[str]] = {}
    for name, of_volume in numbers.items():
        for source, slice_num in of_volume["constant"]:
            places.setdefault(source, []).append(f"{name} slice {slice_num}")
    notes = []
    for source, where in places.items():
        effect = "no scores of the slice are made against it" if source in settings.references else "they count"
        notes.append(f"{len(where)} images of {source} have one value everywhere, {effect}: {name_some(where)}.")
    return notes


def _segmenter_notes(segmented: SegmentationRows) -> list[str]:
    notes, dice = list(segmented.notes), segmented.segmenter_dice
    if segmented.classes and segmented.absent:
        notes.append(f"Left out, since no image has it: class {', '.join(map(str, segmented.absent))}.")
    if segmented.classes and dice:
        values = ", ".join(f"{value:.4f} of class {number}" for number, value in dice.items())
        notes.append(f"The segmenter's own Dice on the references: {values}.")
        notes += [
            f"The segmenter has a Dice of only {value:.2f} on the references for class {number}: SIS says little "
            "of it."
            for number, value in dice.items()
            if value < MIN_DICE
        ]
    return notes


def _reference_notes(numbers: Numbers) -> list[str]:
    """The references' own sharpness and residual, the means over volumes."""
    values: dict[str, dict[str, list[float]]] = {}
    for of_volume in numbers.values():
        for reference, scores in of_volume["references"].items():
            for score, value in scores.items():
                if value is not None:
                    values.setdefault(score, {}).setdefault(reference, []).append(value)
    notes = []
    for score, references in values.items():
        texts = [f"{float(np.mean(of)):.4g} of {name}" for name, of in references.items()]
        notes.append(f"To compare: the references' own {score} is {', '.join(texts)} (mean over volumes).")
    return notes
