"""Reconstruction of undersampled volumes by several methods side by side, with or without a reference."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter, crop_like_fastmri
from fastmri_ufloss.distributed import gather_objects
from fastmri_ufloss.mri.sense import data_residual
from fastmri_ufloss.pl_modules.mri_module import Batch, masks_of, with_maps
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["ReconstructionModule"]

Method = SenseModule | Callable[[Tensor, Tensor, Tensor], Tensor]


class ReconstructionModule(pl.LightningModule):
    """Reconstructs the volumes of a test data set by several methods.

    All methods get the same samples and the same coil maps. In the trainer's ``default_root_dir`` it writes
    ``reconstructions/METHOD/*.h5``, leaderboard files of each method, and, where a reference is known, since the
    samples were taken from fully sampled files, ``reference/*.h5``.

    Args:
        methods: by name, each a trained `MoDLModule` or `RecNetModule`, or a function of masked k-space (batch,
            coils, rows, cols, 2), mask (batch, 1, 1 or rows, cols, 1) and coil maps, like the k-space, to complex
            images (batch, rows, cols).

    Raises:
        ValueError: if there is no method.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        if not methods:
            raise ValueError("methods must hold at least one method, got none")
        self.methods = dict(methods)
        self.networks = torch.nn.ModuleDict({name: m for name, m in methods.items() if isinstance(m, SenseModule)})

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """Complex image (batch, 1, rows, cols) by each method.

        Args:
            batch: a collated `MoDLSample` with coil maps.
        """
        return {
            name: method.reconstruct(batch).image
            if isinstance(method, SenseModule)
            else method(batch.masked_kspace, batch.mask, batch.sens_maps).unsqueeze(1)
            for name, method in self.methods.items()
        }

    def on_test_epoch_start(self) -> None:
        self._writers: dict[str, ReconstructionWriter] = {}
        self._residuals: dict[tuple[str, str], dict[int, float]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        batch = with_maps(batch)
        images = self.reconstruct(batch)
        for name, image in images.items():
            residuals = data_residual(image[:, 0], batch.masked_kspace, batch.mask, batch.sens_maps)
            for fname, slice_num, residual in zip(batch.fname, batch.slice_num.tolist(), residuals, strict=True):
                self._residuals.setdefault((fname, name), {})[slice_num] = float(residual)
            self._write(f"reconstructions/{name}", batch, image, masks_of(batch, len(batch.fname)))
        if batch.reference is not None and batch.target.ndim == 3:
            self._write("reference", batch, batch.reference.unsqueeze(1), [None] * len(batch.fname))

    def on_test_epoch_end(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def residuals(self) -> list[dict[str, Any]]:
        """|E x - y| / |y| on the acquired samples, see `data_residual`: the mean over the slices of each volume.

        Rows of ``volume``, ``method``, ``slices`` and ``residual``; of the volumes of all processes, which all must
        call it.
        """
        parts = gather_objects(self._residuals)
        slices = {key: values for part in parts for key, values in part.items()}
        return [
            {
                "volume": fname,
                "method": name,
                "slices": len(values),
                "residual": float(np.mean(list(values.values()))),
            }
            for (fname, name), values in sorted(slices.items(), key=lambda item: item[0][0])
        ]

    def _write(self, folder: str, batch: Batch, image: Tensor, masks: list[Tensor | None]) -> None:
        if folder not in self._writers:
            self._writers[folder] = ReconstructionWriter(f"{self.trainer.default_root_dir}/{folder}")
        images = crop_like_fastmri(image, batch.crop_size).cpu()
        for fname, slice_num, output, mask in zip(batch.fname, batch.slice_num, images, masks, strict=True):
            self._writers[folder].add(fname, int(slice_num), output, mask=mask)
