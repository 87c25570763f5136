"""The comparison of methods as one document, and the images behind it, a slice at a time."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from fastmri.data.transforms import center_crop

from fastmri_ufloss.files import name_some
from fastmri_ufloss.models import load_segmenter
from fastmri_ufloss.report.acquisitions import open_acquired
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.report.scoring import (
    COIL_COMBINED,
    CONSTANT,
    NOT_FINITE,
    RESIDUAL,
    SHARPNESS,
    Metric,
    ScoredVolumes,
    ScoreSettings,
    list_metrics,
    segment_volume,
)
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
CONTRASTS = {"": "unknown", ALL: f"{ALL} (of the file)"}  # what files do not tell, or tell with a name of ours
Row = dict[str, Any]
NO_MASK = (
    "There is no residual: neither the k-space nor the reconstructions have a data set 'mask' that tells how the "
    "volumes were sampled. Name a folder of masks."
)
OWN_LOSS = (
    "UFLoss is that of the network that a method was trained with, and is not tested: a loss must not grade itself. "
    "Name another network to score with."
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
    """

    def __init__(
        self,
        data: Reconstructions,
        settings: ScoreSettings,
        scored: ScoredVolumes,
        *,
        baseline: str,
        title: str,
        notes: Sequence[str],
        asked: Mapping[str, Any],
    ) -> None:
        self.settings, self._methods, self._numbers = settings, data.methods, scored.numbers
        self._files = {files.name: files for files in data.volumes}
        left_out = [*data.left_out, *self._left_out(scored.failed)]
        left_out.sort(key=lambda row: str(row["volume"]))
        if not any(numbers["volumes"] for numbers in scored.numbers.values()):
            reasons = [f"{row['volume']}: {row['why']} ({row['source']})" for row in left_out]
            raise ValueError(f"volumes must have a slice to compare, got none; {'; '.join(reasons[:5])}")
        self._segmented = SegmentationRows(scored.numbers, data.methods, settings.references[0])
        with_residual = any(RESIDUAL in row for numbers in scored.numbers.values() for row in numbers["volumes"])
        metrics = list_metrics(settings, self._segmented.classes, with_residual=with_residual)
        tested = {m.name: m.larger_is_better for m in metrics if m.tested and m.larger_is_better is not None}
        rows = self._rows("volumes", metrics)
        contrasts = sorted({row["contrast"] for row in rows})
        contrasts = [ALL, *(contrasts if len(contrasts) > 1 else [])]
        notes = [*notes, *self._data_notes(left_out, with_residual=with_residual), *self._score_notes()]
        means: list[Row] = []
        comparisons: list[Row] = []
        for contrast in contrasts:
            of_contrast = [row for row in rows if contrast in (ALL, row["contrast"])]
            scores = scores_by_subject(of_contrast, [metric.name for metric in metrics])
            sis, more = self._segmented.sis_over_images({row["volume"]: row["subject"] for row in of_contrast})
            if more:
                scores.pop("SIS", None)
            compared = comparison_rows(scores, tested, baseline=baseline)
            means += [{"contrast": contrast, **row} for row in mean_rows(scores, known={"SIS": sis})]
            comparisons += [{"contrast": contrast, **row} for row in compared]
            more = [*more, *statistics_notes(scores, compared, list(tested), baseline)]
            notes += [note if contrast == ALL else f"{contrast}: {note}" for note in more]
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
                "settings": asked,
            }
        )

    def read_slice(self, volume: str, slice_num: int) -> SliceImages:
        """The images of a slice of a volume of the document, read from their files; ValueError if one is damaged."""
        files, settings = self._files[volume], self.settings
        images = files.read(slice_num)
        references = {name: image[0] for name, image in images.references.items()}
        outputs = {name: image[0] for name, image in images.outputs.items()}
        if COIL_COMBINED in settings.references and COIL_COMBINED not in references:
            acquired = open_acquired(files, files.read_masks(), device=settings.device).read(slice_num)
            if acquired is not None:
                references[COIL_COMBINED] = center_crop(acquired.image.abs().cpu().numpy(), files.size)
        references = {name: references[name] for name in settings.references if name in references}
        labels: dict[str, np.ndarray] = {}
        if settings.segmenter is not None:
            main = settings.references[0]
            volumes = {name: image[None] for name, image in {main: references[main], **outputs}.items()}
            labels = segment_volume(load_segmenter(settings.segmenter), volumes, device=settings.device)
        segmentation = None if images.segmentation is None else images.segmentation[0]
        return SliceImages(references, outputs, segmentation, {name: of[0] for name, of in labels.items()})

    def _rows(self, kind: str, metrics: Sequence[Metric]) -> list[Row]:
        """Rows of slices or of volumes with what they belong to and the values of all metrics."""
        rows = []
        for name, numbers in self._numbers.items():
            files = self._files[name]
            place = {"subject": files.subject, "contrast": CONTRASTS.get(files.contrast, files.contrast)}
            for row in (row for row in numbers[kind] if row["method"] in self._methods):
                index = {key: row[key] for key in ("slice", "slices", "method") if key in row}
                values = {metric.name: row.get(metric.name) for metric in metrics}
                if "SIS" in values:
                    values["SIS"] = self._segmented.sis.get((name, row.get("slice"), row["method"]))
                rows.append({"volume": name, **place, **index, **values})
        return rows

    def _left_out(self, failed: Mapping[str, str]) -> Iterator[Row]:
        """What does not count of the volumes that were to be scored."""
        why = f"{CONSTANT}: the slice has no scores against it, and counts in those of the volume"
        for name, reason in failed.items():
            yield {"volume": name, "slice": None, "source": "file", "why": reason}
        for name, numbers in self._numbers.items():
            for row in numbers["excluded"]:
                yield {"volume": name, **row}
            for source, slice_num in numbers["constant"]:
                if source in self.settings.references:
                    yield {"volume": name, "slice": slice_num, "source": source, "why": why}

    def _data_notes(self, left_out: Sequence[Row], *, with_residual: bool) -> Iterator[str]:
        """What is to be said of the images, masks and k-space."""
        numbers, count = self._numbers, len(self._files)
        if not with_residual and any(files.kspace is not None for files in self._files.values()):
            yield NO_MASK
        if bad := [row for row in left_out if row["why"] == NOT_FINITE]:
            slices = {(row["volume"], row["slice"]) for row in bad}
            volumes = sorted({name for name, _ in slices})
            sources = ", ".join(dict.fromkeys(row["source"] for row in bad))
            yield (
                f"{len(slices)} slices of {len(volumes)} volumes have {NOT_FINITE} (of {sources}) and are excluded "
                f"for all methods: {name_some(volumes)}."
            )
        if empty := [name for name, of_volume in numbers.items() if not of_volume["volumes"]]:
            yield f"{len(empty)} of {count} volumes are excluded as a whole: {name_some(empty)}."
        if failed := count - len(numbers):
            yield f"{failed} of {count} volumes could not be scored and are left out."
        constant = defaultdict(list)
        for name, of_volume in numbers.items():
            for source, slice_num in of_volume["constant"]:
                constant[source].append(f"{name} slice {slice_num}")
        for source, where in constant.items():
            is_reference = source in self.settings.references
            effect = "no scores of the slice are made against it" if is_reference else "they count"
            yield f"{len(where)} images of {source} have {CONSTANT}, {effect}: {name_some(where)}."
        if differing := {name: of["differing_masks"] for name, of in numbers.items() if of["differing_masks"]}:
            name, methods = next(iter(differing.items()))
            yield (
                f"Methods were reconstructed from different samples: the masks of {len(differing)} volumes differ, "
                f"such as {name} ({', '.join(methods)}). Their differences are not those of the methods alone."
            )

    def _score_notes(self) -> Iterator[str]:
        """What is to be said of the networks, and the references' own sharpness and residual."""
        nets = self.settings.feature_nets
        if nets and all(net.trained_on for net in nets):
            yield OWN_LOSS
        yield from self._segmented.notes
        own = defaultdict(list)
        for of_volume in self._numbers.values():
            for row in of_volume["volumes"]:
                for score in (SHARPNESS, RESIDUAL):
                    if row["method"] not in self._methods and row.get(score) is not None:
                        own[score, row["method"]].append(row[score])
        for (score, reference), values in own.items():
            mean = f"{np.mean(values):.4g} of {reference} (mean over volumes)"
            yield f"To compare: the references' own {score} is {mean}."


def folder_notes(data: Reconstructions) -> Iterator[str]:
    """What the files say before they are scored."""
    if left_out := sorted({row["volume"] for row in data.left_out}):
        yield (
            f"{len(left_out)} volumes that not all folders have, or that cannot be used, are left out: "
            f"{name_some(left_out)}."
        )
    if data.cropped:
        name, sizes = next(iter(data.cropped.items()))
        yield f"{len(data.cropped)} volumes are cropped around their center, such as {name}: {sizes}."
    identifiers = set(data.patient_ids.values())
    if len(data) > 1 and len(identifiers) == 1 and "" not in identifiers:
        yield "All volumes have one patient_id: each of them counts as a subject of its own."
