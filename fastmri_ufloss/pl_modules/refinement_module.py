"""Stage 2, a network that refines the images of a frozen one; and joint training, which it is compared with."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from fastmri_ufloss.models.refinement import RefinementNet
from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction

__all__ = ["JOINT_PRESETS", "WEIGHTS", "JointModule", "RefinementModule"]

WEIGHTS = {"adversarial": 0.5, "feature_matching": 0.5, "penalty": 0.1}
"""Weights of the paper's objective, normalized; each image loss has 1."""

JOINT_PRESETS: dict[str, dict[str, Any]] = {
    "equal": {
        "weights": {"l2": 1.0, "adversarial": 0.5, "feature_matching": 0.5, "perceptual": 1.0},
        "normalize": True,
    },
    "dagan": {
        "weights": {"nmse": 15.0, "frequency": 0.1, "adversarial": 1.0, "perceptual": 0.0025},
        "normalize": False,
    },
}
"""Objectives of joint training by name.

"equal" has the visual terms of `RefinementModule` beside l2, each 1 in the first step. "dagan" has the terms and
weights of DAGAN's code, but not its proportion of the terms: NMSE is squared here, the Fourier transform is
orthonormal and VGG's images lie in 0 .. 1.
"""


class RefinementModule(AdversarialModule):
    """Refines the images of a frozen reconstruction network R, adversarially.

        x_hat = R(x_u) + gate * V(R(x_u)),
        L(V) = (L_adv / M + L_feat / N) / 2 + L_perc / O + alpha |x_V|_1

    For V and the gate see `RefinementNet`, for the training `AdversarialModule`. M, N and O make their terms 1 in the
    first step, alpha makes the penalty 0.1. ``validation_loss`` is the perceptual term, or else the normalized mean
    squared error.

    Args:
        reconstruction: the module of R, trained, which is frozen here and a part of the checkpoint.
        refinement_chans, data_consistency: see `RefinementNet`.
        **kwargs: of `AdversarialModule`; weights are `WEIGHTS`, and 1 for each image loss, where not given.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    prefix = "refinement."
    suffix = " + refinement"

    def __init__(
        self, reconstruction: MriModule, *, refinement_chans: int = 32, data_consistency: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(reconstruction, **kwargs)
        self.reconstruction.requires_grad_(False).eval()
        in_chans: Literal[1, 2] = 2 if self.is_complex else 1
        self.refinement = RefinementNet(in_chans=in_chans, chans=refinement_chans, data_consistency=data_consistency)

    @staticmethod
    def default_weights(image_losses: Iterable[str]) -> dict[str, float]:
        return {**WEIGHTS, **dict.fromkeys(image_losses, 1.0)}

    def train(self, mode: bool = True) -> "RefinementModule":
        """Set the mode of all but R, which stays in eval mode."""
        super().train(mode)
        self.reconstruction.eval()
        return self

    def generate(self, batch: Batch) -> tuple[Tensor, Reconstruction, Tensor | None]:
        with torch.no_grad():
            base = self.base(batch)
        measured = {}
        if self.refinement.data_consistency:
            measured = {"masked_kspace": batch.masked_kspace, "mask": batch.mask, "sens_maps": base.sens_maps}
        image, change = self.refinement(base.image, **measured)
        return image, base, change

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.log("gate", self.refinement.gate.detach())


class JointModule(AdversarialModule):
    """One reconstruction network R, trained from the start for pixels, adversarially and perceptually together.

        L(R) = sum_i w_i L_i,    of an image loss such as l2, the adversarial loss, feature matching, ...

    Arguments are those of `AdversarialModule`, whose weights are those of ``JOINT_PRESETS["equal"]`` for the given
    image losses, where not given. ``validation_loss`` is as in `RefinementModule`.

    Seitzer et al., MICCAI 2018, argue against it; ``JOINT_PRESETS["dagan"]`` with a VGG-16 has the terms of Yang et
    al., "DAGAN", IEEE TMI 2018.
    """

    prefix = "reconstruction."
    suffix = ", joint training"

    @staticmethod
    def default_weights(image_losses: Iterable[str]) -> dict[str, float]:
        known = {"adversarial", "feature_matching", *image_losses}
        return {name: weight for name, weight in JOINT_PRESETS["equal"]["weights"].items() if name in known}

    def generate(self, batch: Batch) -> tuple[Tensor, Reconstruction, Tensor | None]:
        base = self.base(batch)
        return base.image, base, None
