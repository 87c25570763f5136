"""Training, validation and test of RecNet."""

import torch
from torch import nn

from fastmri_ufloss.models.recnet import DataConsistency, RecNet
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["RecNetModule"]

BETAS = (0.5, 0.999)  # of Adam in the paper


class RecNetModule(SenseModule):
    """RecNet on `MoDLSample` batches, see `SenseModule`; stage 1 of `RefinementModule`.

    Args:
        num_blocks, convs_per_block, chans, data_consistency, num_cg_iterations, lam: see `RecNet`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr: Adam's learning rate.

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
        score_stride: int = 5,
        lr: float = 2e-4,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        self.save_hyperparameters()
        self.recnet = RecNet(
            num_blocks=num_blocks,
            convs_per_block=convs_per_block,
            chans=chans,
            data_consistency=data_consistency,
            num_cg_iterations=num_cg_iterations,
            lam=lam,
        )
        self.lr = lr

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.recnet.parameters(), lr=self.lr, betas=BETAS)
