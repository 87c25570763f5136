"""Training, validation and test of networks that reconstruct complex images with coil maps: MoDL, RecNet."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmri_ufloss.checks import check
from fastmri_ufloss.distributed import gather_objects
from fastmri_ufloss.losses import L2Loss
from fastmri_ufloss.losses.ufloss import UFLoss, patch_features, ufloss_per_image
from fastmri_ufloss.models.modl import Denoiser, MoDL
from fastmri_ufloss.models.recnet import DataConsistency, RecNet
from fastmri_ufloss.mri.conjugate_gradient import Backward
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.mri.sense import cg_sense, combine_sets, sense_adjoint
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction, data_range_of, with_maps

__all__ = ["MoDLModule", "RecNetModule", "SenseModule"]

Method = Callable[[Tensor, Tensor, Tensor], Tensor]

BETAS = (0.5, 0.999)  # of Adam in the paper of RecNet


class SenseModule(MriModule):
    """A network of complex images on `MoDLSample` batches.

    The loss compares the complex image with the coil-combined reference, over the whole field of view; NMSE, PSNR and
    SSIM of validation compare its magnitude with the file's root-sum-of-squares image. The test writes
    ``stages/zero_filled``, ``stages/cg_sense``, ``stages/reference`` and those of `add_methods` of volumes that have
    a reference.

    Args:
        loss: of complex images (batch, 1, rows, cols), `L2Loss` if not given. Not part of the hyperparameters.
        score_feature_net: a `PatchFeatureNet` to score the test with. Not part of them either.
        score_stride: of the patches that the test is scored on; None: see `UFLoss`.
        num_log_images: validation batches whose images are logged.
    """

    samples = "modl"
    is_complex = True

    def __init__(
        self,
        *,
        loss: nn.Module | None,
        score_feature_net: nn.Module | None,
        score_stride: int | None,
        num_log_images: int,
    ) -> None:
        super().__init__(num_log_images=num_log_images)
        self.loss = L2Loss() if loss is None else loss
        self.score_ufloss = None if score_feature_net is None else UFLoss(score_feature_net, stride=score_stride)
        self._methods: dict[str, Method] = {"cg_sense": cg_sense}

    @property
    def network(self) -> nn.Module:
        """Called like `MoDL`."""
        network: nn.Module = getattr(self, self.prefix.rstrip("."))
        return network

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None = None) -> Tensor:
        """Magnitude image (batch, rows, cols), see the network."""
        image: Tensor = self.network(masked_kspace, mask, num_low_frequencies)
        return image

    def image_of(self, batch: Batch) -> Tensor:
        """The network's complex image of a batch with maps, (batch, rows, cols) or (batch, sets, rows, cols)."""
        image: Tensor = self.network(
            batch.masked_kspace,
            batch.mask,
            batch.num_low_frequencies,
            sens_maps=batch.sens_maps,
            scale=batch.scale,
            return_complex=True,
        )
        return image

    def reconstruct(self, batch: Batch) -> Reconstruction:
        batch = with_maps(batch)
        image = self.image_of(batch)
        with torch.autocast(batch.masked_kspace.device.type, enabled=False):
            zero_filled = combine_sets(sense_adjoint(batch.masked_kspace, batch.sens_maps)).unsqueeze(1)
            image = combine_sets(image).unsqueeze(1)
        reference = None if batch.reference is None else batch.reference.unsqueeze(1)
        return Reconstruction(image, reference, zero_filled, batch.sens_maps)

    def add_methods(self, methods: Mapping[str, Method]) -> None:
        """Test further methods beside the network, into ``stages/NAME``.

        A method is a function of masked k-space, mask and coil maps to complex images (batch, rows, cols), as
        `cg_sense`.
        """
        self._methods.update(methods)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch, self.reconstruct(batch))
        self.log("train_loss", self.checked(loss), prog_bar=True, batch_size=len(batch.mask))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        self.check_target(batch)
        result = self.reconstruct(batch)
        if self.val_log_indices is not None and batch_idx in self.val_log_indices and result.sens_maps is not None:
            maps = torch.view_as_complex(result.sens_maps[0].contiguous()).abs().flatten(end_dim=-3)
            self.log_image(f"val_images_idx_{batch_idx}/sens_maps", torch.cat(list(maps), dim=-1)[None])
        return self.val_logs(batch, batch_idx, result.image, batch.target, self._loss(batch, result))

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._ufloss: dict[tuple[str, str], dict[int, float]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        batch = with_maps(batch)
        result = self.reconstruct(batch)
        stages = {}
        if result.reference is not None and batch.target.ndim == 3:
            data = batch.masked_kspace, batch.mask, batch.sens_maps
            stages = {"zero_filled": result.zero_filled}
            stages |= {name: combine_sets(method(*data)).unsqueeze(1) for name, method in self._methods.items()}
            self._add_ufloss(batch, {**stages, "reconstruction": result.image}, result.reference)
            stages["reference"] = result.reference
        return self.test_logs(batch, result.image, stages)

    def ufloss_of_volumes(self) -> dict[str, dict[str, float]]:
        """UFLoss of the last test by stage (zero_filled, cg_sense, reconstruction) and file, the mean of the slices.

        Empty without a feature network; all processes must call it together.
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
            values = ufloss_per_image(net, image, reference, stride=stride, target_features=features)
            for fname, slice_num, value in zip(batch.fname, batch.slice_num.tolist(), values.tolist(), strict=True):
                self._ufloss.setdefault((stage, fname), {}).setdefault(slice_num, value)

    def _loss(self, batch: Batch, result: Reconstruction) -> Tensor:
        if result.reference is None:
            raise ValueError(f"{batch.fname[0]} is undersampled: training and validation need full k-space")
        data_range = data_range_of(result.reference)
        loss: Tensor = self.loss(result.image, result.reference, data_range=data_range)  # type: ignore[misc]
        return loss

    def _settings_of(self, network: type[nn.Module]) -> dict[str, Any]:
        """The hyperparameters that are the network's arguments."""
        return {name: self.hparams[name] for name in inspect.signature(network).parameters}

    def _scheduled(self, optimizer: torch.optim.Optimizer) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """The optimizer with the schedule of its learning rate, by the hyperparameters of `MoDLModule`."""
        step_size, gamma = self.hparams.lr_step_size, self.hparams.lr_gamma
        if step_size is not None:
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)]
        return self.with_cosine(optimizer, warmup_steps=self.hparams.warmup_steps)


class MoDLModule(SenseModule):
    """MoDL on `MoDLSample` batches, see `SenseModule`.

    Args:
        num_unrolls: this and all arguments down to ``checkpoint_denoiser``: see `MoDL`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr: Adam's learning rate, the largest of the training.
        warmup_steps: steps in which the rate rises to lr; it then falls along a cosine, to 0 at the trainer's
            last step, or stays where the trainer has no last step.
        lr_step_size: in place of that, epochs after which the rate is multiplied by lr_gamma, again and again.
        lr_gamma: see lr_step_size.
    """

    prefix = "modl."
    title = "MoDL"

    def __init__(
        self,
        *,
        num_unrolls: int = 8,
        num_cg_iterations: int = 6,
        denoiser: Denoiser = "cnn",
        chans: int = 32,
        num_layers: int = 5,
        num_pools: int = 3,
        residual: bool = True,
        share_weights: bool = False,
        lam: float = 0.05,
        learn_lambda: bool = True,
        cg_backward: Backward = "unrolled",
        checkpoint_denoiser: bool = False,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int | None = None,
        lr: float = 2e-3,
        warmup_steps: int = 100,
        lr_step_size: int | None = None,
        lr_gamma: float = 0.1,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        check(warmup_steps >= 0, "warmup_steps", "at least 0", warmup_steps)
        self.save_hyperparameters()
        self.modl = MoDL(**self._settings_of(MoDL))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        return self._scheduled(torch.optim.Adam(self.modl.parameters(), lr=self.hparams.lr))


class RecNetModule(SenseModule):
    """RecNet on `MoDLSample` batches, see `SenseModule`; stage 1 of `RefinementModule`.

    Args:
        num_blocks, convs_per_block, chans, data_consistency, num_cg_iterations, lam: see `RecNet`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr, warmup_steps, lr_step_size, lr_gamma: see `MoDLModule`.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    prefix = "recnet."
    title = "RecNet"

    def __init__(
        self,
        *,
        num_blocks: int = 3,
        convs_per_block: int = 3,
        chans: int = 32,
        data_consistency: DataConsistency = "hard",
        num_cg_iterations: int | None = None,
        lam: float | None = None,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int | None = None,
        lr: float = 2e-3,
        warmup_steps: int = 100,
        lr_step_size: int | None = None,
        lr_gamma: float = 0.1,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        check(warmup_steps >= 0, "warmup_steps", "at least 0", warmup_steps)
        self.save_hyperparameters()
        self.recnet = RecNet(**self._settings_of(RecNet))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        return self._scheduled(torch.optim.Adam(self.recnet.parameters(), lr=self.hparams.lr, betas=BETAS))
