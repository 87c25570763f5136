"""Reconstruction of undersampled volumes by several methods side by side, with or without a reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fastmri_ufloss.baselines import CLASSICAL_METHODS, check_weights
from fastmri_ufloss.metrics.volumes import VolumeScores
from fastmri_ufloss.mri.residual import data_residual
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter, masks_of
from fastmri_ufloss.pl_modules.scoring import add_scores, crop_magnitude, gather_rows, write_json, write_scores
from fastmri_ufloss.pl_modules.sense_module import Reconstruction, maps_and_reference
from fastmri_ufloss.report import format_table, save_comparison

__all__ = ["METHODS", "ReconstructionModule", "save_pictures"]

Batch = Any  # a collated `MoDLSample`

METHODS = {
    **{name: method.title for name, method in CLASSICAL_METHODS.items() if method.needs != "bart"},
    "modl": "MoDL",
}
"""Names of the methods, as folders and in tables."""


class ReconstructionModule(pl.LightningModule):
    """Reconstructs the volumes of a test data set by several methods.

    All methods get the same samples and the same coil maps. In the trainer's ``default_root_dir`` it writes
    ``reconstructions/METHOD/*.h5``, leaderboard files of each method; ``pictures/*.png``, the middle slice of each
    volume by all methods; and ``residuals.json``, the residual |E x - y| / |y| of each method on the samples that
    were acquired, see `data_residual`, a mean over the slices of a volume. Where a reference is known, since the
    samples were taken from fully sampled files, it also writes ``scores.json``, as `MoDLModule` does.

    Args:
        methods: names of `METHODS`.
        modl: the trained network, for the method ``"modl"``.
        weights: of methods that have one (`CLASSICAL_METHODS`), in place of their defaults.

    Raises:
        ValueError: if a method is unknown, comes twice, or has no network, or a weight is not of a method.
    """

    def __init__(
        self, methods: Sequence[str], *, modl: MoDLModule | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        unknown = [name for name in methods if name not in METHODS]
        if unknown or not methods or len(set(methods)) != len(methods):
            raise ValueError(f"methods must be some of {', '.join(METHODS)}, each once, got {list(methods)}")
        if "modl" in methods and modl is None:
            raise ValueError("the method 'modl' needs a trained network: a checkpoint of modl_ufloss/train.py")
        self.methods = list(methods)
        self.modl = modl if "modl" in methods else None
        self.weights = dict(weights or {})
        check_weights(self.weights, self.methods)

    def reconstruct(self, batch: Batch, result: Reconstruction) -> dict[str, Tensor]:
        """Complex image (batch, rows, cols) by each method.

        Args:
            batch: a collated `MoDLSample`.
            result: its coil maps, and the network's image where there is a network.
        """
        kspace, mask, maps = batch.masked_kspace, batch.mask, result.sens_maps
        return {
            name: result.image
            if name == "modl"
            else CLASSICAL_METHODS[name](kspace, mask, maps, self.weights.get(name))
            for name in self.methods
        }

    def on_test_epoch_start(self) -> None:
        folder = Path(self.trainer.default_root_dir) / "reconstructions"
        self._writers = {name: ReconstructionWriter(folder / name) for name in self.methods}
        self._scores = VolumeScores()
        self._residuals: dict[tuple[str, str], dict[int, float]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        if self.modl is None:
            maps, reference = maps_and_reference(batch)
            result = Reconstruction(torch.empty(0), maps, reference)
        else:
            result = self.modl.reconstruct(batch)
        images = self.reconstruct(batch, result)
        slices = [(fname, int(number)) for fname, number in zip(batch.fname, batch.slice_num, strict=True)]
        for name, image in images.items():
            residuals = data_residual(image, batch.masked_kspace, batch.mask, result.sens_maps)
            cropped = crop_magnitude(image, batch.crop_size)
            masks = masks_of(batch, len(slices))
            for (fname, number), output, residual, mask in zip(
                slices, cropped, residuals.tolist(), masks, strict=True
            ):
                self._writers[name].add(fname, number, output, mask=mask)
                self._residuals.setdefault((fname, name), {})[number] = residual
        if result.reference.numel() and batch.target.ndim == 3:
            named = {METHODS[name]: image for name, image in images.items()}
            add_scores(self._scores, batch, named, result.reference, {})

    def on_test_epoch_end(self) -> None:
        for writer in self._writers.values():
            writer.close()
        write_scores(self.trainer, self._scores)
        rows = [
            {
                "volume": fname,
                "method": name,
                "slices": len(values),
                "residual": float(np.mean(list(values.values()))),
            }
            for (fname, name), values in self._residuals.items()
        ]
        rows = gather_rows(self.trainer, rows)
        self.trainer.strategy.barrier("reconstructions")
        if self.trainer.is_global_zero:
            self._report(rows)

    def _report(self, rows: list[dict[str, Any]]) -> None:
        folder = Path(self.trainer.default_root_dir)
        write_json(folder / "residuals.json", {"residuals": rows})
        means = [
            {
                "method": METHODS[name],
                "residual": float(np.mean([r["residual"] for r in rows if r["method"] == name])),
            }
            for name in self.methods
        ]
        residuals = {(row["volume"], row["method"]): row["residual"] for row in rows}
        for fname in dict.fromkeys(row["volume"] for row in rows):
            notes = {name: f"residual {residuals[fname, name]:.3g}" for name in self.methods}
            save_pictures(folder, fname, {name: METHODS[name] for name in self.methods}, notes=notes)
        print(f"\nResidual on the acquired samples, mean over the volumes:\n{format_table(means)}", flush=True)
        print(f"Images: {folder / 'reconstructions'}\nPictures: {folder / 'pictures'}", flush=True)


def save_pictures(
    folder: Path, fname: str, titles: Mapping[str, str], *, notes: Mapping[str, str] | None = None
) -> None:
    """Write ``pictures/*.png``, the middle slice of a volume by all methods, from its files in the folder of a run.

    Args:
        folder: of the run.
        fname: file name of the volume.
        titles: of the methods, by their names.
        notes: a short text for a method, by its name.
    """
    images = {title: _middle_slice(folder / "reconstructions" / name / fname) for name, title in titles.items()}
    save_comparison(
        folder / "pictures" / f"{Path(fname).stem}.png",
        images,
        compare_with=titles.get("cg_sense"),
        notes={titles[name]: note for name, note in (notes or {}).items()},
        title=fname,
    )


def _middle_slice(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        images = file["reconstruction"]
        return images[images.shape[0] // 2]
