"""The comparison of methods as one document, and the images behind it, a slice at a time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from fastmri.data.transforms import center_crop

from fastmri_ufloss.files import name_some
from fastmri_ufloss.report.acquisitions import open_acquired
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.report.scores.score_settings import COIL_COMBINED, RESIDUAL, Metric, ScoreSettings, list_metrics
from fastmri_ufloss.report.scores.scoring import CONSTANT, NOT_FINITE, ScoredVolumes, segment_volume
from fastmri_ufloss.report.subject_tables import (
    SegmentationRows,
    comparison_rows,
    mean_rows,
    plain,
    scores_by_subject,
    statistics_notes,
)

__all__ = ["ALL", "Comparison", "SliceImages", "folder_notes"]

ALL = "all"
UNKNOWN = "unknown"  # contrast of a file that does not tell
MIN_DICE = 0.5  # of a segmenter on the references
Row = dict[str, Any]
Numbers = Mapping[str, Mapping[str, Any]]
NO_MASK = (
    "There is no residual: neither the k-space nor the reconstructions have a data set 'mask' that tells how the "
    "volumes were sampled. Name a folder of masks."
)


class SliceImages(NamedTuple):
    """A slice of all methods: magnitudes and class numbers, (rows, cols) each."""

    reference: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    segmentation: np.ndarray | None
    labels: dict[str, np.ndarray]  # what the segmenter finds, by method and main reference


class Comparison:
    """Methods compared on the volumes that were scored: a ``document`` of tables with statistics, in plain values.

    The subject is the unit: the mean over a subject's volumes is its value. All tested scores of all methods, each
    against the baseline, are one family for Holm's correction; "all" volumes and each contrast are families of their
    own, as they are questions of their own (figure 9 of Wang et al., MRM 2022, shows contrasts apart).

    Args:
        notes: what is to be said beside what the scores themselves say.
        asked: the entries of ``settings`` in the document, in plain values.

    Raises:
        ValueError: if no volume could be scored, or the baseline is none of the methods.
    """

    def __init__(
        self,
        data: Reconstructions,
        settings: ScoreSettings,
        scored: ScoredVolumes,
        *,
        baseline: str,
        title: str = "Comparison of reconstructions",
        notes: Sequence[str] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.baseline = settings, baseline
        self._files = {files.name: files for files in data.volumes}
        self._numbers = scored.numbers
        if baseline not in data.methods:
            raise ValueError(f"baseline must be one of {', '.join(data.methods)}, got {baseline!r}")
        left_out = self._left_out(data.left_out, scored.failed)
        if not any(numbers["volumes"] for numbers in scored.numbers.values()):
            reasons = [f"{row['volume']}: {row['why']} ({row['source']})" for row in left_out]
            raise ValueError(f"volumes must have a slice to compare, got none; {'; '.join(reasons[:5])}")
        self._segmented = SegmentationRows(scored.numbers, data.methods)
        with_residual = any(RESIDUAL in row for numbers in scored.numbers.values() for row in numbers["volumes"])
        metrics = list_metrics(settings, self._segmented.classes, with_residual=with_residual)
        rows = self._rows("volumes", metrics)
        contrasts = sorted({row["contrast"] for row in rows})
        contrasts = [ALL, *(contrasts if len(contrasts) > 1 else [])]
        notes = list(notes)
        if not with_residual and any(files.kspace is not None for files in data.volumes):
            notes.append(NO_MASK)
        notes += self._data_notes(left_out)
        means: list[Row] = []
        comparisons: list[Row] = []
        for contrast in contrasts:
            of_contrast = [row for row in rows if contrast in (ALL, row["contrast"])]
            tables = self._compare(of_contrast, metrics)
            means += [{"contrast": contrast, **row} for row in tables[0]]
            comparisons += [{"contrast": contrast, **row} for row in tables[1]]
            notes += [note if contrast == ALL else f"{contrast}: {note}" for note in tables[2]]
        self.document: Row = plain(
            {
                "title": title,
                "methods": data.methods,
                "baseline": baseline,
                "references": settings.references,
                "metrics": [metric._asdict() for metric in metrics],
                "contrasts": contrasts,
                "slices": self._rows("slices", metrics),
                "volumes": rows,
                "means": means,
                "comparisons": comparisons,
                "excluded": left_out,
                "notes": list(dict.fromkeys(notes)),
                "settings": asked or {},
            }
        )

    def read_slice(self, volume: str, slice_num: int) -> SliceImages:
        """The images of a slice, read from their files.

        Raises:
            ValueError: if the volume is not known or cannot be read.
        """
        if volume not in self._files:
            raise ValueError(f"volume must be one of {', '.join(self._files)}, got {volume!r}")
        files, settings = self._files[volume], self.settings
        images = files.read(slice_num)
        references = {name: image[0] for name, image in images.references.items()}
        if COIL_COMBINED in settings.references and COIL_COMBINED not in references:
            acquired = open_acquired(files, files.read_masks(), device=settings.device).read(slice_num)
            if acquired is not None:
                references[COIL_COMBINED] = center_crop(acquired.image.abs().cpu().numpy(), files.size)
        labels: dict[str, np.ndarray] = {}
        if settings.segmenter is not None:
            main = settings.main_reference
            volumes = {main: references[main][None], **images.outputs}
            labels = segment_volume(settings.load_segmenter(), volumes, device=settings.device)
        return SliceImages(
            {name: references[name] for name in settings.references if name in references},
            {name: image[0] for name, image in images.outputs.items()},
            None if images.segmentation is None else images.segmentation[0],
            {name: classes[0] for name, classes in labels.items()},
        )

    def _rows(self, kind: str, metrics: Sequence[Metric]) -> list[Row]:
        """Rows of slices or of volumes with what they belong to and the values of all metrics."""
        rows = []
        for name, numbers in self._numbers.items():
            files = self._files[name]
            contrast = {"": UNKNOWN, ALL: f"{ALL} (of the file)"}.get(files.contrast, files.contrast)
            for row in numbers[kind]:
                index = {"slice": row["slice"]} if kind == "slices" else {}
                count = {"slices": row["slices"]} if kind == "volumes" else {}
                place = {"volume": name, **index, "subject": files.subject, "contrast": contrast, **count}
                values = {metric.name: row.get(metric.name) for metric in metrics}
                if "SIS" in values:
                    values["SIS"] = self._segmented.sis.get((name, *index.values(), row["method"]))
                rows.append({**place, "method": row["method"], **values})
        return rows

    def _compare(self, rows: Sequence[Row], metrics: Sequence[Metric]) -> tuple[list[Row], list[Row], list[str]]:
        """Means, comparisons and notes of the volumes of a contrast."""
        scores = scores_by_subject(rows, [metric.name for metric in metrics])
        sis, notes = self._segmented.sis_over_images({row["volume"]: row["subject"] for row in rows})
        if notes:
            scores.pop("SIS", None)
        tested = {
            metric.name: metric.larger_is_better
            for metric in metrics
            if metric.tested and metric.larger_is_better is not None
        }
        comparisons = comparison_rows(scores, tested, baseline=self.baseline)
        notes += statistics_notes(scores, comparisons, list(tested), self.baseline)
        return mean_rows(scores, known={"SIS": sis}), comparisons, notes

    def _left_out(self, before: Sequence[Row], failed: Mapping[str, str]) -> list[Row]:
        """All that does not count, in the order of the volumes."""
        rows = [dict(row) for row in before]
        rows += [{"volume": name, "slice": None, "source": "file", "why": why} for name, why in failed.items()]
        why = f"{CONSTANT}: the slice has no scores against it, and counts in those of the volume"
        for name, numbers in self._numbers.items():
            rows += [{"volume": name, **row} for row in numbers["excluded"]]
            rows += [
                {"volume": name, "slice": slice_num, "source": source, "why": why}
                for source, slice_num in numbers["constant"]
                if source in self.settings.references
            ]
        return sorted(rows, key=lambda row: str(row["volume"]))

    def _data_notes(self, left_out: Sequence[Row]) -> list[str]:
        """What the scores say of the data."""
        numbers, nets = self._numbers, self.settings.feature_nets
        notes = _excluded_notes(left_out, numbers, len(self._files))
        notes += _constant_notes(numbers, self.settings.references)
        differing = {name: of["differing_masks"] for name, of in numbers.items() if of["differing_masks"]}
        if differing:
            name, methods = next(iter(differing.items()))
            notes.append(
                f"Methods were reconstructed from different samples: the masks of {len(differing)} volumes differ, "
                f"such as {name} ({', '.join(methods)}). Their differences are not those of the methods alone."
            )
        if nets and all(net.trained_on for net in nets):
            notes.append(
                "UFLoss is that of the network that a method was trained with, and is not tested: a loss must not "
                "grade itself. Name another network to score with."
            )
        return [*notes, *_segmenter_notes(self._segmented), *_reference_notes(numbers)]


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


def _excluded_notes(excluded: Sequence[Row], numbers: Numbers, num_volumes: int) -> list[str]:
    notes = []
    if bad := [row for row in excluded if row["slice"] is not None and row["why"] == NOT_FINITE]:
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


def _constant_notes(numbers: Numbers, references: Sequence[str]) -> list[str]:
    places: dict[str, list[str]] = {}
    for name, of_volume in numbers.items():
        for source, slice_num in of_volume["constant"]:
            places.setdefault(source, []).append(f"{name} slice {slice_num}")
    notes = []
    for source, where in places.items():
        effect = "no scores of the slice are made against it" if source in references else "they count"
        notes.append(f"{len(where)} images of {source} have one value everywhere, {effect}: {name_some(where)}.")
    return notes


def _segmenter_notes(segmented: SegmentationRows) -> list[str]:
    notes, dice = list(segmented.notes), segmented.segmenter_dice
    if segmented.classes and segmented.absent:
        notes.append(f"Left out, since no image has it: class {', '.join(map(str, segmented.absent))}.")
    if segmented.classes and dice:
        values = ", ".join(f"{value:.4f} of class {label}" for label, value in dice.items())
        notes.append(f"The segmenter's own Dice on the references: {values}.")
        poor = "The segmenter has a Dice of only {:.2f} on the references for class {}: SIS says little of it."
        notes += [poor.format(value, label) for label, value in dice.items() if value < MIN_DICE]
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
