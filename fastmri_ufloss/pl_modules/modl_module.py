"""Training, validation and test of MoDL."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from fastmri.data.transforms import center_crop_to_smallest
from torch import Tensor, nn

from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.losses.l2 import L2Loss
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.volumes import VolumeScores
from fastmri_ufloss.models.modl import MoDL
from fastmri_ufloss.mri.patch_images import image_scale
from fastmri_ufloss.mri.sense import cg_sense, sens_reduce
from fastmri_ufloss.pl_modules.mri_module import MriModule, keep_own_loss
from fastmri_ufloss.pl_modules.scoring import add_scores, crop_magnitude, write_scores

__all__ = ["MoDLModule", "Reconstruction", "maps_and_reference"]

Batch = Any  # a collated `MoDLSample`: its numbers are tensors of the batch, its strings and sizes lists


class Reconstruction(NamedTuple):
    """What a batch becomes, in the intensities of the file.

    Args:
        image: complex (batch, rows, cols).
        sens_maps: (batch, coils, rows, cols, 2).
        reference: complex (batch, rows, cols), empty where k-space is undersampled.
    """

    image: Tensor
    sens_maps: Tensor
    reference: Tensor


def maps_and_reference(batch: Batch) -> tuple[Tensor, Tensor]:
    """Coil maps and complex coil-combined reference of a batch: those it has, or computed where it is."""
    if batch.sens_maps.numel():
        return batch.sens_maps, batch.reference
    with torch.autocast(batch.mask.device.type, enabled=False):
        maps = MoDL.estimate_maps(batch.masked_kspace, batch.mask, batch.num_low_frequencies)
        if not batch.kspace.numel():
            return maps, batch.reference
        return maps, torch.view_as_complex(sens_reduce(batch.kspace, maps))[:, 0]


class MoDLModule(MriModule):
    """MoDL on `MoDLSample` batches.

    The loss compares the complex image with the complex coil-combined reference, over the whole field of view.
    NMSE, PSNR and SSIM of validation are fastMRI's, of the magnitude against the root-sum-of-squares image of
    the file. In the test, volumes that have a reference are scored beside the zero-filled and the CG-SENSE
    image: ``scores.json`` and ``reconstruction.png`` in the trainer's ``default_root_dir``.

    Args:
        model: settings of `MoDL`.
        loss: of complex images (batch, 1, rows, cols), `L2Loss` if not given. Not part of the hyperparameters.
        score_feature_net: a `PatchFeatureNet` to score the test with. Not part of them either.
        score_stride: of the patches that the test is scored on.
        lr: Adam's learning rate.
        lr_step_size: epochs after which it is multiplied by lr_gamma, again and again; None keeps it, as the paper.
        lr_gamma: see lr_step_size.
        num_log_images: validation batches whose images are logged.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int = 5,
        lr: float = 1e-4,
        lr_step_size: int | None = None,
        lr_gamma: float = 0.1,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(num_log_images=num_log_images)
        self.save_hyperparameters(ignore=["model", "loss", "score_feature_net"])
        self.save_hyperparameters({"model": dict(model or {})})
        self.modl = MoDL(**dict(model or {}))
        self.loss = L2Loss() if loss is None else loss
        self.lr = lr
        self.lr_step_size = lr_step_size
        self.lr_gamma = lr_gamma
        self.score_stride = score_stride
        # in a list, so that its weights are no part of this module
        self._score_feature_nets = [] if score_feature_net is None else [score_feature_net]
        self.register_load_state_dict_pre_hook(keep_own_loss)

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None = None) -> Tensor:
        """Magnitude image (batch, rows, cols), see `MoDL`."""
        return self.modl(masked_kspace, mask, num_low_frequencies)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The one way from a batch to an image, for training, validation, test and inference."""
        maps, reference = maps_and_reference(batch)
        scale = batch.scale.to(batch.masked_kspace)
        image = self.modl(
            batch.masked_kspace / scale[:, None, None, None, None],
            batch.mask,
            batch.num_low_frequencies,
            sens_maps=maps,
            return_complex=True,
        )
        return Reconstruction(image * scale[:, None, None], maps, reference)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch, self.reconstruct(batch))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.mask))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        result = self.reconstruct(batch)
        if batch.target.ndim != 3:
            raise ValueError(f"{batch.fname[0]} has no target image, which validation needs")
        target, output = center_crop_to_smallest(batch.target, result.image.abs())
        loss = self._loss(batch, result)
        if self.val_log_indices is not None and batch_idx in self.val_log_indices:
            maps = torch.view_as_complex(result.sens_maps[0].contiguous()).abs()
            self.log_image(f"val_images_idx_{batch_idx}/sens_maps", torch.cat(list(maps), dim=-1)[None])
        return {
            "batch_idx": batch_idx,
            "fname": batch.fname,
            "slice_num": batch.slice_num,
            "max_value": batch.max_value,
            "output": output,
            "target": target,
            "val_loss": loss,
        }

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._scores = VolumeScores()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        result = self.reconstruct(batch)
        if result.reference.numel() and batch.target.ndim == 3:
            self._score(batch, result)
        return {
            "fname": batch.fname,
            "slice": batch.slice_num,
            "output": crop_magnitude(result.image, batch.crop_size),
        }

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        write_scores(self.trainer, self._scores)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        optimizer = torch.optim.Adam(self.modl.parameters(), lr=self.lr)
        if self.lr_step_size is None:
            return [optimizer], []
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step_size, self.lr_gamma)]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "cpu" or not isinstance(batch, MoDLSample) or not batch.kspace.numel():
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        # the fully sampled k-space holds the masked one, which need not cross the bus as well
        batch = super().transfer_batch_to_device(batch._replace(masked_kspace=torch.empty(0)), device, dataloader_idx)
        return batch._replace(masked_kspace=batch.kspace * batch.mask)

    def _loss(self, batch: Batch, result: Reconstruction) -> Tensor:
        if not result.reference.numel():
            raise ValueError(f"{batch.fname[0]} is undersampled: training and validation need full k-space")
        reference = result.reference.unsqueeze(1)
        data_range = reference.abs().amax(dim=(1, 2, 3))
        data_range = torch.where(data_range > 0, data_range, 1.0)  # of a slice without signal any will do
        return self.loss(result.image.unsqueeze(1), reference, data_range=data_range)

    def _score(self, batch: Batch, result: Reconstruction) -> None:
        zero_filled = torch.view_as_complex(sens_reduce(batch.masked_kspace, result.sens_maps))[:, 0]
        images = {
            "zero-filled": zero_filled,
            "CG-SENSE": cg_sense(batch.masked_kspace, batch.mask, result.sens_maps),
            "MoDL": result.image,
        }
        ufloss = self._score_ufloss(images, result.reference)
        add_scores(self._scores, batch, images, result.reference, ufloss)

    def _score_ufloss(self, images: Mapping[str, Tensor], reference: Tensor) -> dict[str, Tensor]:
        if not self._score_feature_nets:
            return {}
        net = self._score_feature_nets[0].to(reference.device).eval()
        target = reference.unsqueeze(1)
        features = patch_features(net, target, image_scale(target), stride=self.score_stride)
        return {
            name: ufloss_per_image(
                net, image.unsqueeze(1), target, stride=self.score_stride, target_features=features
            )
            for name, image in images.items()
        }
