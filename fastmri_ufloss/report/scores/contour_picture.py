"""A picture of a volume with what a segmenter finds in it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fastmri.evaluate import psnr

from fastmri_ufloss.report.figures.contours import save_contours
from fastmri_ufloss.report.scores.network_scores import slice_dice
from fastmri_ufloss.report.scores.score_settings import ScoreSettings

__all__ = ["picture_path", "save_volume_contours"]


def picture_path(folder: Path, name: str) -> Path:
    """The file of a volume's picture."""
    return folder / f"{Path(name).stem}.png"


def save_volume_contours(
    settings: ScoreSettings,
    name: str,
    kept: np.ndarray,
    references: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    truth: np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> None:
    """Draw the slice with the largest segmented area, or the middle one, into the folder of pictures.

    Args:
        settings: with the folder.
        name: file name of the volume.
        kept: numbers of its slices.
        references, outputs: magnitudes (slices, rows, cols) by name.
        truth: true class numbers.
        labels: class numbers that were found, of the main reference and of each method.
    """
    if settings.pictures is None:
        return
    areas = (truth > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    main = settings.main_reference
    images = {main: references[main][index], **{method: images[index] for method, images in outputs.items()}}
    notes = {}
    for source, image in images.items():
        texts = []
        if source != main:
            with np.errstate(divide="ignore"):  # of equal images
                texts.append(f"PSNR {float(psnr(images[main], image, maxval=references[main].max())):.1f} dB")
        if areas.any():
            dice = slice_dice(labels[source][index][None], truth[index][None], settings.num_classes)
            texts.append(f"Dice {np.nanmean(dice):.2f}")
        notes[source] = ", ".join(texts)
    save_contours(
        picture_path(settings.pictures, name),
        images,
        truth=truth[index],
        predictions={source: labels[source][index] for source in images},
        notes=notes,
        title=f"{name}, slice {kept[index]}",
    )
