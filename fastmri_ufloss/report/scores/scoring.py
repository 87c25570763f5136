"""All scores of one volume and all methods, as numbers that a file can keep."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from fastmri.evaluate import psnr
from torch import Tensor

from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.metrics.volumes import ReferenceVolume, fine_structures, sharpness
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.acquisitions import AcquiredScores, differing_masks, score_acquired
from fastmri_ufloss.report.figures.contours import save_contours
from fastmri_ufloss.report.reconstructions import KSPACE, ReconstructedVolume, VolumeFiles
from fastmri_ufloss.report.scores.score_settings import (
    COIL_COMBINED,
    RESIDUAL,
    SHARPNESS,
    FeatureNetFile,
    ScoreSettings,
)

__all__ = ["CONSTANT", "NOT_FINITE", "score_files", "segment_volume"]

NOT_FINITE = "NaN or infinite values"
CONSTANT = "one value everywhere"
BATCH = 8  # slices that go through a segmenter at once


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
        of images with one value everywhere; ``references``, the sharpness and residual of each reference;
        ``segmenter``, of each slice the Dice on the main reference; ``differing_masks``, methods.

    Raises:
        ValueError: if a file cannot be read or does not fit the networks; the message names the file.
    """
    volume, acquired = _read(files, settings)
    kept, excluded = _choose_slices(volume, [] if acquired is None else acquired.bad)
    differing = differing_masks(files.read_masks()) if acquired is None else acquired.differing
    numbers: dict[str, Any] = {"volumes": [], "slices": [], "constant": [], "references": {}, "segmenter": []}
    numbers |= {"excluded": excluded, "differing_masks": differing}
    if not kept.size:
        return numbers
    if kept.size < files.num_slices:
        truth = None if volume.segmentation is None else volume.segmentation[kept]
        volume = ReconstructedVolume(_pick(volume.references, kept), _pick(volume.outputs, kept), truth)
    numbers["constant"] = _constant_images(volume, kept)
    scores = _Scores(volume.outputs)
    _add_image_scores(volume, scores)
    for net in settings.feature_nets:
        _add_ufloss(volume, acquired, kept, settings, net, scores)
    if settings.segmenter is not None:
        numbers["segmenter"] = _add_dice(volume, kept, files, settings, scores)
    for method in volume.outputs:
        if acquired is not None and method in acquired.residual:
            scores.add(method, RESIDUAL, acquired.residual[method][kept], acquired.of_volume(method, kept))
    # the references' values of the scores that need no reference
    values = {name: {SHARPNESS: _mean(map(sharpness, images))} for name, images in volume.references.items()}
    if acquired is not None and acquired.is_fully_sampled and "" in acquired.residual:
        values.setdefault(COIL_COMBINED, {})[RESIDUAL] = acquired.of_volume("", kept)
    numbers["references"] = {name: _plain(of_reference) for name, of_reference in values.items()}
    for method, of_volume in scores.volumes.items():
        numbers["volumes"].append({"method": method, "slices": len(kept), **_plain(of_volume)})
    for index, slice_num in enumerate(kept.tolist()):
        for method, columns in scores.slices.items():
            of_slice = _plain({name: float(column[index]) for name, column in columns.items()})
            numbers["slices"].append({"slice": slice_num, "method": method, **of_slice})
    return numbers


class _Scores:
    """By method: columns of slices, and the values of the volume."""

    def __init__(self, methods: Iterable[str]) -> None:
        self.slices: dict[str, dict[str, np.ndarray]] = {method: {} for method in methods}
        self.volumes: dict[str, dict[str, float]] = {method: {} for method in self.slices}

    def add(self, method: str, name: str, slices: np.ndarray, volume: float | None = None) -> None:
        """Add a score; the volume's is the mean over the slices that have a value, if none is given."""
        self.slices[method][name] = slices
        self.volumes[method][name] = _mean(slices) if volume is None else volume


def _read(files: VolumeFiles, settings: ScoreSettings) -> tuple[ReconstructedVolume, AcquiredScores | None]:
    """The volume with the references of the settings, in their order, and what its k-space tells."""
    volume = files.read()
    acquired = None
    if files.kspace is not None:
        acquired = score_acquired(files, volume.outputs, device=settings.device)
        if COIL_COMBINED in settings.references and COIL_COMBINED not in volume.references:
            if not acquired.is_fully_sampled:
                raise ValueError(
                    f"{files.kspace} is undersampled: there is no coil-combined reference; name one with --reference"
                )
            volume.references[COIL_COMBINED] = np.abs(acquired.image)
    return volume._replace(references={name: volume.references[name] for name in settings.references}), acquired


def _choose_slices(volume: ReconstructedVolume, bad_kspace: Iterable[int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The numbers of the slices to score, and rows of what is left out."""
    excluded: list[dict[str, Any]] = []

    def exclude(slice_num: int | None, source: str, why: str) -> None:
        excluded.append({"slice": slice_num, "source": source, "why": why})

    for source, images in {**volume.references, **volume.outputs}.items():
        for slice_num in np.flatnonzero(~np.isfinite(images).all(axis=(1, 2))).tolist():
            exclude(slice_num, source, NOT_FINITE)
    for slice_num in bad_kspace:
        exclude(slice_num, KSPACE, NOT_FINITE)
    num_slices = len(volume.references[next(iter(volume.references))])
    kept = np.setdiff1d(np.arange(num_slices), [row["slice"] for row in excluded])
    if not kept.size:
        exclude(None, "all", "no slice is left")
    for name, images in volume.references.items():
        if kept.size and not images[kept].max() > 0:
            exclude(None, name, "no value is above 0")
            kept = kept[:0]
    return kept, excluded


def _pick(images: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    return {source: volume[kept] for source, volume in images.items()}


def _constant_images(volume: ReconstructedVolume, kept: np.ndarray) -> list[list[Any]]:
    constant: list[list[Any]] = []
    for source, images in {**volume.references, **volume.outputs}.items():
        flat = images.reshape(len(images), -1)
        constant += [[source, number] for number in kept[flat.min(axis=1) == flat.max(axis=1)].tolist()]
    return constant


def _add_image_scores(volume: ReconstructedVolume, scores: _Scores) -> None:
    references = {name: ReferenceVolume(images) for name, images in volume.references.items()}
    for method, output in volume.outputs.items():
        fine = fine_structures(output)  # once for all references
        for name, reference in references.items():
            of_slices, of_volume = reference.score(output, fine)
            for score, values in of_slices.items():
                scores.add(method, f"{score} ({name})", values, of_volume[score])
        scores.add(method, SHARPNESS, np.array([sharpness(image) for image in output]))


@torch.no_grad()
def _add_ufloss(
    volume: ReconstructedVolume,
    acquired: AcquiredScores | None,
    kept: np.ndarray,
    settings: ScoreSettings,
    net: FeatureNetFile,
    scores: _Scores,
) -> None:
    """UFLoss of each slice over the whole grid; nan where the reference is constant."""
    reference, phase = settings.main_reference, None
    if net.in_chans == 2:
        if acquired is None:
            raise ValueError(f"{net.path} is a network of complex images, which need k-space for their phase")
        reference = COIL_COMBINED if COIL_COMBINED in volume.references else reference
        phase = np.angle(acquired.image[kept])
    network = settings.feature_net(net)
    options = {} if settings.stride is None else {"stride": settings.stride}

    def tensor(images: np.ndarray, index: int) -> Tensor:
        """An image (1, 1, rows, cols), complex with a phase."""
        image = torch.from_numpy(np.ascontiguousarray(images[index]))
        if phase is not None:
            image = torch.polar(image, torch.from_numpy(np.ascontiguousarray(phase[index])).to(image.dtype))
        return image[None, None].to(settings.device)

    targets = volume.references[reference]
    values = {method: np.full(len(kept), np.nan) for method in volume.outputs}
    for index, image in enumerate(targets):
        if image.min() == image.max():
            continue
        target = tensor(targets, index)
        features = patch_features(network, target, image_scale(target), **options)  # once for all methods
        for method, images in volume.outputs.items():
            output = tensor(images, index)
            loss = ufloss_per_image(network, output, target, target_features=features, **options)
            values[method][index] = float(loss)
    for method, of_slices in values.items():
        scores.add(method, net.metric, of_slices)


def _add_dice(
    volume: ReconstructedVolume, kept: np.ndarray, files: VolumeFiles, settings: ScoreSettings, scores: _Scores
) -> list[dict[str, Any]]:
    """Dice of each method; returns for each slice the Dice on the main reference by class."""
    truth, highest = volume.segmentation, settings.num_classes - 1
    if truth is None:
        raise ValueError(f"a segmenter needs segmentations, got none of {files.name}")
    if truth.min() < 0 or truth.max() > highest:
        raise ValueError(
            f"{files.segmentation} must have the segmenter's classes 0 .. {highest}, got {truth.min()} .. {truth.max()}"
        )
    main = settings.main_reference
    labels = segment_volume(settings, {main: volume.references[main], **volume.outputs})
    dice = {source: _slice_dice(classes, truth, settings.num_classes) for source, classes in labels.items()}
    for method in volume.outputs:
        for index in range(highest):
            scores.add(method, f"Dice {index + 1}", dice[method][:, index])
    _save_contours(settings, files.name, kept, volume, truth, labels)
    return [
        {"slice": slice_num, **_plain({f"Dice {index + 1}": float(row[index]) for index in range(highest)})}
        for slice_num, row in zip(kept.tolist(), dice[main], strict=True)
    ]


@torch.no_grad()
def segment_volume(settings: ScoreSettings, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Class numbers (slices, rows, cols) that the segmenter finds in magnitudes of the same shape, by name."""
    net = settings.segmentation_net()
    labels = {}
    for source, volume in images.items():
        batches = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(1).split(BATCH)
        labels[source] = torch.cat([net(batch.to(settings.device)).cpu() for batch in batches]).numpy()
    return labels


def _slice_dice(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Dice of each slice and class but the background, (slices, num_classes - 1); nan without the class."""
    return dice_of_classes(torch.from_numpy(labels), torch.from_numpy(truth), num_classes).double().numpy()


def _save_contours(
    settings: ScoreSettings,
    name: str,
    kept: np.ndarray,
    volume: ReconstructedVolume,
    truth: np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> None:
    """Draw the slice with the largest segmented area, or the middle one, if pictures are asked for."""
    path, main = settings.picture_path(name), settings.main_reference
    if path is None:
        return
    areas = (truth > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    target = volume.references[main]
    images = {main: target[index], **{method: output[index] for method, output in volume.outputs.items()}}
    notes: dict[str, str] = {}
    for source, image in images.items():
        texts = []
        if source != main:
            with np.errstate(divide="ignore"):  # equal images
                texts.append(f"PSNR {float(psnr(images[main], image, maxval=target.max())):.1f} dB")
        if areas.any():
            dice = _slice_dice(labels[source][index][None], truth[index][None], settings.num_classes)
            texts.append(f"Dice {np.nanmean(dice):.2f}")
        notes[source] = ", ".join(texts)
    save_contours(
        path,
        images,
        truth=truth[index],
        predictions={source: labels[source][index] for source in images},
        notes=notes,
        title=f"{name}, slice {kept[index]}",
    )


def _mean(values: Iterable[float]) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    present = np.array([value for value in values if not math.isnan(value)])
    return float(present.mean()) if present.size else math.nan


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not defined; what is infinite stays, to be told of."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}
