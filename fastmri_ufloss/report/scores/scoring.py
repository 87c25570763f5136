"""All scores of one volume and all methods, as numbers that a file can keep."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.volumes import ReferenceVolume, fine_structures, sharpness
from fastmri_ufloss.report.reconstructed_volume import VolumeFiles
from fastmri_ufloss.report.scores.acquired_scores import AcquiredScores, differing_masks, score_acquired
from fastmri_ufloss.report.scores.contour_picture import save_volume_contours
from fastmri_ufloss.report.scores.network_scores import segment_volume, slice_dice, ufloss_of_slices
from fastmri_ufloss.report.scores.score_settings import COIL_COMBINED, FeatureNetFile, ScoreSettings

__all__ = ["score_files"]

SHARPNESS, RESIDUAL = "sharpness", "residual"
NOT_FINITE = "NaN or infinite values"
CONSTANT = "one value everywhere"


def score_files(files: VolumeFiles, settings: ScoreSettings) -> dict[str, Any]:
    """Read a volume of all methods and score it.

    A slice in which any image, or the k-space, is not finite is left out for all methods, so that comparisons stay
    paired; so is a volume without such slices or whose reference has no signal.

    Args:
        files: of the volume.
        settings: what is scored.

    Returns:
        Numbers and texts only: ``volumes``, a row for each method with its scores; ``slices``, a row for each slice
        and method; ``excluded``, what was left out, with ``slice`` None for the volume; ``constant``, [source, slice]
        of images with one value everywhere; ``yardsticks``, of each reference its own sharpness and residual;
        ``segmenter``, of each slice the Dice on the main reference; ``differing_masks``, methods.

    Raises:
        ValueError: if a file cannot be read or does not fit the networks; the message names it.
    """
    volume = _read(files, settings)
    found: dict[str, Any] = {"volumes": [], "slices": [], "constant": [], "yardsticks": {}, "segmenter": []}
    found |= {"excluded": volume.excluded, "differing_masks": volume.differing_masks}
    if not len(volume.kept):
        return found
    found["constant"] = _constant_images(volume)
    scores = {method: _Scores() for method in volume.outputs}
    _add_image_scores(volume, scores)
    for method, output in volume.outputs.items():
        scores[method].add_mean(SHARPNESS, np.array([sharpness(image) for image in output]))
    for net in settings.feature_nets:
        _add_ufloss(volume, settings, net, scores)
    if settings.segmenter is not None:
        found["segmenter"] = _add_dice(volume, files, settings, scores)
    _add_residuals(volume, scores)
    found["yardsticks"] = _yardsticks(volume)
    for method, of_method in scores.items():
        found["volumes"].append({"method": method, "slices": len(volume.kept), **_plain(of_method.volume)})
    for index, number in enumerate(volume.kept.tolist()):
        for method, of_method in scores.items():
            values = {name: float(column[index]) for name, column in of_method.slices.items()}
            found["slices"].append({"slice": number, "method": method, **_plain(values)})
    return found


class _Scores:
    """Of a method: columns of slices, and the values of the volume."""

    def __init__(self) -> None:
        self.slices: dict[str, np.ndarray] = {}
        self.volume: dict[str, float] = {}

    def add(self, name: str, slices: np.ndarray, volume: float) -> None:
        self.slices[name], self.volume[name] = slices, volume

    def add_mean(self, name: str, slices: np.ndarray) -> None:
        """Of the volume it is the mean over the slices that have a value."""
        self.add(name, slices, _mean(slices))


@dataclass
class _Volume:
    """What is in memory of a volume: only the slices that are kept."""

    kept: np.ndarray
    references: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    segmentation: np.ndarray | None
    acquired: AcquiredScores | None
    excluded: list[dict[str, Any]]
    differing_masks: list[str]


def _read(files: VolumeFiles, settings: ScoreSettings) -> _Volume:
    references, outputs, segmentation = files.read()
    acquired, masks = None, files.read_masks()
    if files.kspace is not None:
        acquired = score_acquired(files, outputs, device=settings.device)
        if COIL_COMBINED in settings.references and COIL_COMBINED not in references:
            if not acquired.is_fully_sampled:
                raise ValueError(
                    f"{files.kspace} is undersampled: there is no coil-combined reference; name one with --reference"
                )
            references[COIL_COMBINED] = np.abs(acquired.image)
    references = {name: references[name] for name in settings.references}
    excluded = []
    bad = np.zeros(files.num_slices, dtype=bool)
    for source, images in {**references, **outputs}.items():
        wrong = ~np.isfinite(images).all(axis=(1, 2))
        excluded += [_exclude(number, source, NOT_FINITE) for number in np.flatnonzero(wrong).tolist()]
        bad |= wrong
    for number in acquired.bad if acquired is not None else []:
        excluded.append(_exclude(number, "k-space", NOT_FINITE))
        bad[number] = True
    kept = np.flatnonzero(~bad)
    if not kept.size:
        excluded.append(_exclude(None, "all", "no slice is left"))
    for name, images in references.items():
        if kept.size and not images[kept].max() > 0:
            excluded.append(_exclude(None, name, "no value is above 0"))
            kept = kept[:0]
    return _Volume(
        kept,
        {name: images[kept] for name, images in references.items()},
        {name: images[kept] for name, images in outputs.items()},
        None if segmentation is None else segmentation[kept],
        acquired,
        excluded,
        differing_masks(masks) if acquired is None else acquired.differing,
    )


def _exclude(number: int | None, source: str, why: str) -> dict[str, Any]:
    return {"slice": number, "source": source, "why": why}


def _constant_images(volume: _Volume) -> list[list[Any]]:
    found = []
    for source, images in {**volume.references, **volume.outputs}.items():
        flat = images.reshape(len(images), -1)
        constant = volume.kept[flat.min(axis=1) == flat.max(axis=1)]
        found += [[source, number] for number in constant.tolist()]
    return found


def _add_image_scores(volume: _Volume, scores: Mapping[str, _Scores]) -> None:
    references = {name: ReferenceVolume(images) for name, images in volume.references.items()}
    for method, output in volume.outputs.items():
        fine = fine_structures(output)  # once for all references
        for name, reference in references.items():
            found = reference.score(output, fine)
            for score, values in found.slices.items():
                scores[method].add(f"{score} ({name})", values, found.volume[score])


def _add_ufloss(volume: _Volume, settings: ScoreSettings, net: FeatureNetFile, scores: Mapping[str, _Scores]) -> None:
    reference, phase = settings.main_reference, None
    if net.in_chans == 2:
        if volume.acquired is None:
            raise ValueError(f"{net.path} is a network of complex images, which need k-space for their phase")
        reference = COIL_COMBINED if COIL_COMBINED in volume.references else reference
        phase = np.angle(volume.acquired.image[volume.kept])
    options = {} if settings.stride is None else {"stride": settings.stride}
    values = ufloss_of_slices(
        settings.feature_net(net), volume.references[reference], volume.outputs, phase, settings.device, **options
    )
    for method, of_method in values.items():
        scores[method].add_mean(net.metric, of_method)


def _add_dice(
    volume: _Volume, files: VolumeFiles, settings: ScoreSettings, scores: Mapping[str, _Scores]
) -> list[dict[str, Any]]:
    """Dice of each method, and of each slice the Dice on the main reference by class."""
    truth = volume.segmentation
    if truth is None:
        raise ValueError(f"a segmenter needs segmentations, got none of {files.name}")
    if truth.min() < 0 or truth.max() >= settings.num_classes:
        raise ValueError(
            f"{files.segmentation} must have the segmenter's classes 0 .. {settings.num_classes - 1}, got "
            f"{truth.min()} .. {truth.max()}"
        )
    main = settings.main_reference
    labels = segment_volume(settings, {main: volume.references[main], **volume.outputs})
    dice = {source: slice_dice(found, truth, settings.num_classes) for source, found in labels.items()}
    for method in volume.outputs:
        for number in range(1, settings.num_classes):
            scores[method].add_mean(f"Dice {number}", dice[method][:, number - 1])
    if settings.pictures is not None:
        save_volume_contours(settings, files.name, volume.kept, volume.references, volume.outputs, truth, labels)
    return [
        {"slice": number, **_plain({f"Dice {n}": float(row[n - 1]) for n in range(1, settings.num_classes)})}
        for number, row in zip(volume.kept.tolist(), dice[main], strict=True)
    ]


def _add_residuals(volume: _Volume, scores: Mapping[str, _Scores]) -> None:
    acquired = volume.acquired
    for method, of_method in scores.items():
        if acquired is not None and method in acquired.residual:
            of_volume = acquired.of_volume(method, volume.kept)
            of_method.add(RESIDUAL, acquired.residual[method][volume.kept], of_volume)


def _yardsticks(volume: _Volume) -> dict[str, dict[str, float | None]]:
    """The references' own values of the scores that need no reference."""
    found = {
        name: {SHARPNESS: _mean(np.array([sharpness(image) for image in images]))}
        for name, images in volume.references.items()
    }
    acquired = volume.acquired
    if acquired is not None and acquired.is_fully_sampled and "" in acquired.residual:
        found.setdefault(COIL_COMBINED, {})[RESIDUAL] = acquired.of_volume("", volume.kept)
    return {name: _plain(values) for name, values in found.items()}


def _mean(values: np.ndarray) -> float:
    """Of what is not nan; nan if all is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else math.nan


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not defined; what is infinite stays, to be told of."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}
