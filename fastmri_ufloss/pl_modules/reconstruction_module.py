"""Reconstruction of undersampled volumes by several methods side by side, with or without a reference."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fastmri_ufloss.checks import require
from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter, crop_like_fastmri
from fastmri_ufloss.distributed import gather_objects
from fastmri_ufloss.mri.sense import combine_sets, data_residual
from fastmri_ufloss.pl_modules.mri_module import Batch, with_maps
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["ReconstructionModule"]

Method = SenseModule | Callable[[Tensor, Tensor, Tensor], Tensor]


class ReconstructionModule(pl.LightningModule):
    """Reconstructs the volumes of a test data set by several methods, with the same samples and coil maps.

    The trainer's ``default_root_dir`` gets ``reconstructions/METHOD/*.h5``, leaderboard files of each method, and of
    fully sampled volumes ``reference/*.h5``.

    A method, at least one by name, ValueError otherwise, is a trained `MoDLModule` or `RecNetModule`, or a function
    of masked k-space (batch, coils, rows, cols, 2), mask (batch, 1, 1 or rows, cols, 1) and coil maps, like the
    k-space, to complex images (batch, rows, cols). With several sets of maps images are (batch, sets, rows, cols),
    and are combined when they are written.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        require(len(methods) > 0, "methods must hold at least one method", "none")
        self.methods = dict(methods)
        self.networks = torch.nn.ModuleDict({name: m for name, m in methods.items() if isinstance(m, SenseModule)})

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """Complex image (batch, [sets,] rows, cols) of a `MoDLSample` batch with coil maps by each method."""
        data = batch.masked_kspace, batch.mask, batch.sens_maps
        return {
            name: method.image_of(batch) if isinstance(method, SenseModule) else method(*data)
            for name, method in self.methods.items()
        }

    def on_test_epoch_start(self) -> None:
        self._writers: dict[str, ReconstructionWriter] = {}
        self._residuals: dict[tuple[str, str], dict[int, float]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        batch = with_maps(batch)
        for name, image in self.reconstruct(batch).items():
            residuals = data_residual(image, batch.masked_kspace, batch.mask, batch.sens_maps)
            for fname, slice_num, residual in zip(batch.fname, batch.slice_num.tolist(), residuals, strict=True):
                self._residuals.setdefault((fname, name), {})[slice_num] = float(residual)
            self._write(f"reconstructions/{name}", batch, combine_sets(image).unsqueeze(1), batch.mask)
        if batch.reference is not None and batch.target.ndim == 3:
            self._write("reference", batch, batch.reference.unsqueeze(1), [None] * len(batch.fname))

    def on_test_epoch_end(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def residuals(self) -> list[dict[str, Any]]:
        """|E x - y| / |y| on the acquired samples, see `data_residual`: the mean over the slices of each volume.

        Rows of ``volume``, ``method``, ``slices`` and ``residual``; all processes must call it together.
        """
        volumes: dict[tuple[str, str], dict[int, float]] = {}
        for part in gather_objects(self._residuals):
            volumes.update(part)
        rows = []
        for (fname, name), slices in sorted(volumes.items(), key=lambda item: item[0][0]):
            residual = float(np.mean(list(slices.values())))
            rows.append({"volume": fname, "method": name, "slices": len(slices), "residual": residual})
        return rows

    def _write(self, folder: str, batch: Batch, image: Tensor, masks: Iterable[Tensor | None]) -> None:
        writer = self._writers.setdefault(folder, ReconstructionWriter(f"{self.trainer.default_root_dir}/{folder}"))
        images = crop_like_fastmri(image, batch.crop_size).cpu()
        for fname, slice_num, output, mask in zip(batch.fname, batch.slice_num, images, masks, strict=True):
            writer.add(fname, int(slice_num), output, mask=mask)
