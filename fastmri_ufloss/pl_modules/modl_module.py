"""Training, validation and test of MoDL."""

from typing import Any

import torch
from torch import nn

from fastmri_ufloss.models.modl import Denoiser, MoDL
from fastmri_ufloss.mri.conjugate_gradient import Backward
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["MoDLModule"]


class MoDLModule(SenseModule):
    """MoDL on `MoDLSample` batches, see `SenseModule`.

    Args:
        num_unrolls, num_cg_iterations, denoiser, chans, num_pools, residual, share_weights, lam, learn_lambda,
            cg_backward, checkpoint_denoiser: see `MoDL`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr: Adam's learning rate.
        lr_step_size: epochs after which it is multiplied by lr_gamma, again and again; None keeps it, as the paper.
        lr_gamma: see lr_step_size.
    """

    prefix = "modl."
    title = "MoDL"

    def __init__(
        self,
        *,
        num_unrolls: int = 5,
        num_cg_iterations: int = 6,
        denoiser: Denoiser = "unet",
        chans: int = 64,
        num_pools: int = 3,
        residual: bool = True,
        share_weights: bool = True,
        lam: float = 0.05,
        learn_lambda: bool = True,
        cg_backward: Backward = "unrolled",
        checkpoint_denoiser: bool = False,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int = 5,
        lr: float = 1e-4,
        lr_step_size: int | None = None,
        lr_gamma: float = 0.1,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        self.save_hyperparameters()
        self.modl = MoDL(
            num_unrolls=num_unrolls,
            num_cg_iterations=num_cg_iterations,
            denoiser=denoiser,
            chans=chans,
            num_pools=num_pools,
            residual=residual,
            share_weights=share_weights,
            lam=lam,
            learn_lambda=learn_lambda,
            cg_backward=cg_backward,
            checkpoint_denoiser=checkpoint_denoiser,
        )
        self.lr = lr
        self.lr_step_size = lr_step_size
        self.lr_gamma = lr_gamma

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        optimizer = torch.optim.Adam(self.modl.parameters(), lr=self.lr)
        if self.lr_step_size is None:
            return [optimizer], []
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step_size, self.lr_gamma)]
