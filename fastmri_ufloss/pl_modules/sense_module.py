"""What modules of networks that reconstruct complex images with coil maps share: MoDL, RecNet."""

from typing import Any

import numpy as np
import torch
from fastmri.data.transforms import center_crop_to_smallest
from torch import Tensor, nn

from fastmri_ufloss.data.reconstruction_writer import crop_like_fastmri
from fastmri_ufloss.distributed import gather_objects
from fastmri_ufloss.losses import L2Loss
from fastmri_ufloss.losses.ufloss import UFLoss, patch_features, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.mri.sense import cg_sense, sens_reduce
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction, with_maps

__all__ = ["SenseModule"]


class SenseModule(MriModule):
    """A network of complex images on `MoDLSample` batches.

    The loss compares the complex image with the complex coil-combined reference, over the whole field of view.
    NMSE, PSNR and SSIM of validation are fastMRI's, of the magnitude against the root-sum-of-squares image of
    the file. In the test, volumes that have a reference get the zero-filled image, the CG-SENSE image and the
    reference written beside the network's: ``stages/zero_filled``, ``stages/cg_sense`` and ``stages/reference``.

    A subclass has the network and writes `configure_optimizers`.

    Args:
        loss: of complex images (batch, 1, rows, cols), `L2Loss` if not given. Not part of the hyperparameters.
        score_feature_net: a `PatchFeatureNet` to score the test with. Not part of them either.
        score_stride: of the patches that the test is scored on.
        num_log_images: validation batches whose images are logged.
    """

    samples = "modl"
    is_complex = True

    def __init__(
        self,
        *,
        loss: nn.Module | None,
        score_feature_net: nn.Module | None,
        score_stride: int,
        num_log_images: int,
    ) -> None:
        super().__init__(num_log_images=num_log_images)
        self.loss = L2Loss() if loss is None else loss
        self.score_ufloss = None if score_feature_net is None else UFLoss(score_feature_net, stride=score_stride)

    @property
    def network(self) -> nn.Module:
        """Called like `MoDL`."""
        network: nn.Module = getattr(self, self.prefix.rstrip("."))
        return network

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None = None) -> Tensor:
        """Magnitude image (batch, rows, cols), see the network."""
        image: Tensor = self.network(masked_kspace, mask, num_low_frequencies)
        return image

    def reconstruct(self, batch: Batch) -> Reconstruction:
        batch = with_maps(batch)
        scale = batch.scale.to(batch.masked_kspace)
        image = self.network(
            batch.masked_kspace / scale[:, None, None, None, None],
            batch.mask,
            batch.num_low_frequencies,
            sens_maps=batch.sens_maps,
            return_complex=True,
        )
        with torch.autocast(batch.masked_kspace.device.type, enabled=False):
            zero_filled = torch.view_as_complex(sens_reduce(batch.masked_kspace, batch.sens_maps))
        reference = None if batch.reference is None else batch.reference.unsqueeze(1)
        return Reconstruction((image * scale[:, None, None]).unsqueeze(1), reference, zero_filled, batch.sens_maps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch, self.reconstruct(batch))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.mask))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        result = self.reconstruct(batch)
        if batch.target.ndim != 3:
            raise ValueError(f"{batch.fname[0]} has no target image, which validation needs")
        target, output = center_crop_to_smallest(batch.target, result.image[:, 0].abs())
        if self.val_log_indices is not None and batch_idx in self.val_log_indices and result.sens_maps is not None:
            maps = torch.view_as_complex(result.sens_maps[0].contiguous()).abs()
            self.log_image(f"val_images_idx_{batch_idx}/sens_maps", torch.cat(list(maps), dim=-1)[None])
        return {
            "batch_idx": batch_idx,
            "fname": batch.fname,
            "slice_num": batch.slice_num,
            "max_value": batch.max_value,
            "output": output,
            "target": target,
            "val_loss": self._loss(batch, result),
        }

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._ufloss: dict[tuple[str, str], dict[int, float]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        batch = with_maps(batch)
        result = self.reconstruct(batch)
        stages = {}
        if result.reference is not None and batch.target.ndim == 3:
            image = cg_sense(batch.masked_kspace, batch.mask, batch.sens_maps).unsqueeze(1)
            stages = {"zero_filled": result.zero_filled, "cg_sense": image, "reference": result.reference}
            self._add_ufloss(batch, {**stages, "reconstruction": result.image}, result.reference)
        return {
            "fname": batch.fname,
            "slice": batch.slice_num,
            "output": crop_like_fastmri(result.image, batch.crop_size).cpu(),
            "stages": {name: crop_like_fastmri(image, batch.crop_size).cpu() for name, image in stages.items()},
        }

    def ufloss_of_volumes(self) -> dict[str, dict[str, float]]:
        """UFLoss of the last test by stage and file name, the mean over the slices; of the volumes of all processes.

        The stages are ``"zero_filled"``, ``"cg_sense"`` and ``"reconstruction"``; empty without a feature network.
        """
        values: dict[str, dict[str, float]] = {}
        for part in gather_objects(self._ufloss):
            for (stage, fname), slices in part.items():
                values.setdefault(stage, {})[fname] = float(np.mean(list(slices.values())))
        return values

    def _add_ufloss(self, batch: Batch, images: dict[str, Tensor], reference: Tensor) -> None:
        if self.score_ufloss is None:
            return
        net, stride = self.score_ufloss.feature_net, self.score_ufloss.stride
        features = patch_features(net, reference, image_scale(reference), stride=stride)
        for stage, image in images.items():
            if stage == "reference":
                continue
            values = ufloss_per_image(net, image, reference, stride=stride, target_features=features)
            for fname, slice_num, value in zip(batch.fname, batch.slice_num.tolist(), values.tolist(), strict=True):
                self._ufloss.setdefault((stage, fname), {}).setdefault(slice_num, value)

    def _loss(self, batch: Batch, result: Reconstruction) -> Tensor:
        if result.reference is None:
            raise ValueError(f"{batch.fname[0]} is undersampled: training and validation need full k-space")
        data_range = result.reference.abs().amax(dim=(1, 2, 3))
        data_range = torch.where(data_range > 0, data_range, 1.0)  # of a slice without signal any will do
        loss: Tensor = self.loss(result.image, result.reference, data_range=data_range)  # type: ignore[misc]
        return loss
