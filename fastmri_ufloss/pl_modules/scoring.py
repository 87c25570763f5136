"""What the tests of reconstruction modules share: cropping, scores against both references, their table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.metrics.volumes import VolumeScores, mean_scores
from fastmri_ufloss.report.figures.comparison import save_picture
from fastmri_ufloss.report.table import format_table

__all__ = ["add_scores", "crop_magnitude", "gather_rows", "write_scores"]


def crop_magnitude(image: Tensor, crop_size: Sequence[Tensor]) -> np.ndarray:
    """Magnitude (batch, rows, cols) of images, cropped as fastMRI crops them for its leaderboard.

    Args:
        image: complex (batch, rows, cols).
        crop_size: the collated field of a sample, rows and columns of each.
    """
    magnitude = image.abs().float()
    rows, cols = (int(size[0]) for size in crop_size)
    if magnitude.shape[-1] < cols:  # as fastMRI crops images that are narrower than they should be
        rows = cols = magnitude.shape[-1]
    return center_crop(magnitude, (min(rows, magnitude.shape[-2]), cols)).cpu().numpy()


def add_scores(
    scores: VolumeScores,
    batch: Any,
    images: Mapping[str, Tensor],
    reference: Tensor,
    ufloss: Mapping[str, Tensor],
) -> None:
    """Add the slices of a batch to the scores, against the RSS image of the file and the coil-combined one.

    Args:
        scores: to add to.
        batch: a collated `MoDLSample` with target.
        images: complex (batch, rows, cols), by the method's name.
        reference: coil-combined, complex (batch, rows, cols).
        ufloss: (batch,) by the method's name, may be empty.
    """
    crop_size = tuple(min(a, b) for a, b in zip(batch.target.shape[-2:], reference.shape[-2:], strict=True))

    def magnitude(image: Tensor) -> Any:
        return center_crop(image.abs().float(), crop_size).cpu().numpy()

    outputs = {name: magnitude(image) for name, image in images.items()}
    targets = {"RSS": magnitude(batch.target), "coil-combined": magnitude(reference)}
    for i, fname in enumerate(batch.fname):
        scores.add(
            fname,
            int(batch.slice_num[i]),
            outputs={name: image[i] for name, image in outputs.items()},
            targets={name: image[i] for name, image in targets.items()},
            max_value=float(batch.max_value[i]),
            ufloss={name: float(values[i]) for name, values in ufloss.items()},
        )


def gather_rows(trainer: pl.Trainer, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all processes in the order of the volumes, each volume and method once."""
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, rows)
        rows = [row for part in gathered for row in part]
    unique = {(row["volume"], row["method"]): row for row in rows}
    return [unique[key] for key in sorted(unique, key=lambda key: key[0])]


def write_scores(trainer: pl.Trainer, scores: VolumeScores) -> None:
    """Write ``scores.json`` and ``reconstruction.png`` into the trainer's folder, and print the means."""
    scores.close()
    rows = gather_rows(trainer, scores.rows)
    if not rows or not trainer.is_global_zero:
        return
    folder = Path(trainer.default_root_dir)
    means = mean_scores(rows)
    write_json(folder / "scores.json", {"means": means, "volumes": rows})
    example = dict(scores.example)
    if example:
        rss = example.pop("RSS")
        save_picture(folder / "reconstruction.png", example.pop("coil-combined", rss), example)
    print("\nMeans over the volumes, against the RSS and, where there are coil maps, the coil-combined image:")
    print(format_table(means), flush=True)
    print(f"Scores: {folder / 'scores.json'}\nPicture: {folder / 'reconstruction.png'}", flush=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
