"""The test of networks in stages: leaderboard files of the last one, images of the others beside them."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.metrics.volumes import VolumeScores
from fastmri_ufloss.pl_modules.mri_module import MriModule
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter, masks_of
from fastmri_ufloss.pl_modules.reconstructor import SENSE_NETWORKS, Reconstructed, Reconstructor
from fastmri_ufloss.pl_modules.scoring import write_scores

__all__ = ["STAGES", "Generated", "StagesTest"]

STAGES = ("zero_filled", "reconstruction", "reference")
"""Folders of images beside the leaderboard files."""


class Generated(NamedTuple):
    """What the generator makes of a batch.

    Args:
        image: (batch, 1, rows, cols), complex or magnitude, in the intensities of the file.
        base: of the reconstruction network, before anything else.
        change: what the penalty is of; None if there is none.
    """

    image: Tensor
    base: Reconstructed
    change: Tensor | None


class StagesTest(MriModule):
    """Writes, scores and pictures what a module's ``generate`` makes of test batches.

    In the trainer's ``default_root_dir``: ``reconstructions/*.h5``, leaderboard files; ``stages/NAME/*.h5``, in the
    same form, the zero-filled image, that of the reconstruction network and, where there is one, the reference;
    and where the file has a target ``scores.json`` and ``reconstruction.png``.
    """

    title: str
    """Of the last stage, in tables."""
    base_title: str
    """Of the reconstruction network, in tables."""
    reconstructor: Reconstructor

    @abstractmethod
    def generate(self, batch: Any) -> Generated:
        """From a batch to an image."""

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        folder = Path(self.trainer.default_root_dir) / "stages"
        self._stage_writers = {name: ReconstructionWriter(folder / name) for name in STAGES}
        self._scores = VolumeScores()

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        generated = self.generate(batch)
        images = self._stages(batch, generated)
        for i, (fname, mask) in enumerate(zip(batch.fname, masks_of(batch, len(batch.fname)), strict=True)):
            for name in STAGES:
                if name in images:
                    mask_of_stage = None if name == "reference" else mask
                    self._stage_writers[name].add(fname, int(batch.slice_num[i]), images[name][i], mask=mask_of_stage)
        if "target" in images:
            self._add_scores(batch, images)
        return {"fname": batch.fname, "slice": batch.slice_num, "output": images["output"]}

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        for writer in self._stage_writers.values():
            writer.close()
        write_scores(self.trainer, self._scores)

    def _stages(self, batch: Any, generated: Generated) -> dict[str, Any]:
        """Magnitudes (batch, rows, cols) by name, cropped as the leaderboard's."""
        found = {
            "output": generated.image,
            "zero_filled": generated.base.zero_filled,
            "reconstruction": generated.base.image,
            "reference": generated.base.target,
        }
        magnitudes = {name: image[:, 0].abs().float() for name, image in found.items() if image.numel()}
        if hasattr(batch, "crop_size"):
            size = [int(torch.as_tensor(size).flatten()[0]) for size in batch.crop_size]
            rows, cols = generated.image.shape[-2:]
            if cols < size[1]:  # as fastMRI crops images that are narrower than they should be
                size = [cols, cols]
            size = [min(size[0], rows), size[1]]
            magnitudes = {name: center_crop(image, tuple(size)) for name, image in magnitudes.items()}
        if batch.target.ndim == 3:
            if hasattr(batch, "mean"):  # of the U-Net it is normalised
                magnitudes["target"] = magnitudes["reference"]
            else:
                magnitudes["target"] = center_crop(batch.target.float(), _smaller(batch.target, magnitudes["output"]))
        return {name: image.cpu().numpy() for name, image in magnitudes.items()}

    def _add_scores(self, batch: Any, images: dict[str, Any]) -> None:
        methods = {"zero-filled": "zero_filled", self.base_title: "reconstruction", self.title: "output"}
        shape = images["target"].shape
        targets = {"RSS": images["target"]}
        if "reference" in images and self.reconstructor.name in SENSE_NETWORKS:
            targets["coil-combined"] = images["reference"]
        for i, fname in enumerate(batch.fname):
            self._scores.add(
                fname,
                int(batch.slice_num[i]),
                outputs={
                    title: center_crop(torch.as_tensor(images[name][i]), shape[1:]).numpy()
                    for title, name in methods.items()
                    if name in images
                },
                targets={
                    name: center_crop(torch.as_tensor(image[i]), shape[1:]).numpy() for name, image in targets.items()
                },
                max_value=float(batch.max_value[i]),
                ufloss={},
            )


def _smaller(a: Tensor, b: Tensor) -> tuple[int, int]:
    return min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1])
