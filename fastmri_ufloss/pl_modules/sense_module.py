"""What modules of networks that reconstruct complex images with coil maps share: MoDL, RecNet."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from fastmri.data.transforms import center_crop_to_smallest
from torch import Tensor, nn

from fastmri_ufloss.losses.l2 import L2Loss
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.volumes import VolumeScores
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.mri.sense import cg_sense, sens_reduce
from fastmri_ufloss.pl_modules.mri_module import MriModule, keep_own_loss
from fastmri_ufloss.pl_modules.scoring import add_scores, crop_magnitude, write_scores

__all__ = ["Reconstruction", "SenseModule", "maps_and_reference", "sense_reconstruct"]

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
        maps = estimate_sens_maps(batch.masked_kspace, batch.num_low_frequencies, mask=batch.mask)
        if not batch.kspace.numel():
            return maps, batch.reference
        return maps, torch.view_as_complex(sens_reduce(batch.kspace, maps))[:, 0]


def sense_reconstruct(network: nn.Module, batch: Batch) -> Reconstruction:
    """The one way from a batch to an image, for training, validation, test, refinement and inference.

    Args:
        network: called like `MoDL`, with maps and for a complex result.
        batch: a collated `MoDLSample`.
    """
    maps, reference = maps_and_reference(batch)
    scale = batch.scale.to(batch.masked_kspace)
    image = network(
        batch.masked_kspace / scale[:, None, None, None, None],
        batch.mask,
        batch.num_low_frequencies,
        sens_maps=maps,
        return_complex=True,
    )
    return Reconstruction(image * scale[:, None, None], maps, reference)


class SenseModule(MriModule):
    """A network of complex images on `MoDLSample` batches.

    The loss compares the complex image with the complex coil-combined reference, over the whole field of view.
    NMSE, PSNR and SSIM of validation are fastMRI's, of the magnitude against the root-sum-of-squares image of
    the file. In the test, volumes that have a reference are scored beside the zero-filled and the CG-SENSE
    image: ``scores.json`` and ``reconstruction.png`` in the trainer's ``default_root_dir``.

    A subclass sets ``title``, has the network and writes `configure_optimizers`.

    Args:
        loss: of complex images (batch, 1, rows, cols), `L2Loss` if not given. Not part of the hyperparameters.
        score_feature_net: a `PatchFeatureNet` to score the test with. Not part of them either.
        score_stride: of the patches that the test is scored on.
        num_log_images: validation batches whose images are logged.
    """

    title: ClassVar[str]
    """Of the network, in tables."""

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
        self.score_stride = score_stride
        # in a list, so that its weights are no part of this module
        self._score_feature_nets = [] if score_feature_net is None else [score_feature_net]
        self.register_load_state_dict_pre_hook(keep_own_loss)

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Called like `MoDL`."""

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None = None) -> Tensor:
        """Magnitude image (batch, rows, cols), see the network."""
        image: Tensor = self.network(masked_kspace, mask, num_low_frequencies)
        return image

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """See `sense_reconstruct`."""
        return sense_reconstruct(self.network, batch)

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
            self.title: result.image,
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
