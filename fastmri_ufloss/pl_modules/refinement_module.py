"""Stage 2, a network that refines the images of a frozen one; and joint training, which it is compared with."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.weighted import Weight
from fastmri_ufloss.models.refinement import RefinementNet
from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule
from fastmri_ufloss.pl_modules.base_module import read_checkpoint
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction
from fastmri_ufloss.pl_modules.recnet_module import RecNetModule

__all__ = ["JOINT_PRESETS", "WEIGHTS", "JointModule", "RefinementModule", "load_reconstruction"]

_Module = TypeVar("_Module", bound="_StoredReconstruction")

RECONSTRUCTIONS: dict[str, type[MriModule]] = {
    kind.__name__: kind for kind in (RecNetModule, MoDLModule, VarNetModule, UnetModule)
}

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
weights of DAGAN's code, but each term at the scale that it has in this package: NMSE is squared here, the Fourier
transform is orthonormal and VGG's images lie in 0 .. 1, so the terms are not in DAGAN's proportion.
"""


def load_reconstruction(path: str | Path) -> MriModule:
    """The module of a checkpoint of `RecNetModule`, `MoDLModule`, `VarNetModule` or `UnetModule`.

    Raises:
        FileNotFoundError, ValueError: if there is none, or it is no checkpoint, or one of another model.
    """
    first = {name.partition(".")[0] for name in read_checkpoint(path)["state_dict"]}
    kinds = [kind for kind in RECONSTRUCTIONS.values() if kind.prefix.rstrip(".") in first]
    if len(kinds) != 1:
        names = ", ".join(kind.prefix.rstrip(".") for kind in RECONSTRUCTIONS.values())
        raise ValueError(
            f"{path} must be a checkpoint of one of {names}, got one whose weights are named "
            f"{', '.join(sorted(first)[:4])}"
        )
    return kinds[0].load_from_checkpoint(path)


class _StoredReconstruction(AdversarialModule):
    """Loads the reconstruction network from the module's own checkpoint."""

    @classmethod
    def load_from_checkpoint(cls: type[_Module], checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> _Module:
        checkpoint = read_checkpoint(checkpoint_path, prefix=cls.prefix)
        if cls is JointModule and any(name.startswith("refinement.") for name in checkpoint["state_dict"]):
            raise ValueError(f"{checkpoint_path} is a checkpoint of another model: a refinement, not joint training")
        stored = checkpoint.get("reconstruction")
        if stored is None:
            raise ValueError(
                f"{checkpoint_path} has no settings of its reconstruction network, since it was written before "
                "version 0.2: train again"
            )
        if "reconstruction" not in kwargs:
            kwargs["reconstruction"] = RECONSTRUCTIONS[stored["module"]](**stored["settings"])
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)


class RefinementModule(_StoredReconstruction):
    """Refines the images of a frozen reconstruction network R, adversarially.

        x_hat = R(x_u) + gate * V(R(x_u)),
        L(V) = (L_adv / M + L_feat / N) / 2 + L_perc / O + alpha |x_V|_1

    R is frozen, in eval mode, without gradients, in no optimizer, and in the checkpoint. For V and the gate see
    `RefinementNet`, for the training `AdversarialModule`. M, N and O make their terms 1 in the first step, alpha
    makes the penalty 0.1. ``validation_loss`` is the perceptual term, or without one the normalized mean squared
    error.

    Args:
        reconstruction: the module of R, trained; it is frozen here.
        refinement_chans, data_consistency: see `RefinementNet`.
        weights: `WEIGHTS`, and 1 for each image loss, where not given; the paper's only image loss is ``perceptual``.
        images, image_losses, discriminator_chans, num_strided, dropout, normalize, label_smoothing, replay_size,
            replay_probability, lr, beta1, accumulate_grad_batches, seed, num_log_images: see `AdversarialModule`;
            the defaults are the paper's.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    prefix = "refinement."
    suffix = " + refinement"

    def __init__(
        self,
        reconstruction: MriModule,
        *,
        refinement_chans: int = 32,
        data_consistency: bool = False,
        images: str | None = None,
        image_losses: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, Weight] | None = None,
        discriminator_chans: int = 64,
        num_strided: int = 5,
        dropout: float = 0.5,
        normalize: bool = True,
        label_smoothing: float = 0.1,
        replay_size: int = 80,
        replay_probability: float = 0.5,
        lr: float = 2e-4,
        beta1: float = 0.5,
        accumulate_grad_batches: int = 1,
        seed: int = 0,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            reconstruction,
            images=images,
            image_losses=image_losses,
            weights=weights,
            discriminator_chans=discriminator_chans,
            num_strided=num_strided,
            dropout=dropout,
            normalize=normalize,
            label_smoothing=label_smoothing,
            replay_size=replay_size,
            replay_probability=replay_probability,
            lr=lr,
            beta1=beta1,
            accumulate_grad_batches=accumulate_grad_batches,
            seed=seed,
            num_log_images=num_log_images,
        )
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

    def generator_parameters(self) -> list[nn.Parameter]:
        return list(self.refinement.parameters())

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


class JointModule(_StoredReconstruction):
    """One reconstruction network R, trained from the start for pixels, adversarially and perceptually together.

        L(R) = sum_i w_i L_i,    of an image loss such as l2, the adversarial loss, feature matching, ...

    It is what Seitzer et al., MICCAI 2018, argue against. ``JOINT_PRESETS["dagan"]`` with a VGG-16 has the terms of
    Yang et al., "DAGAN", IEEE TMI 2018. ``validation_loss`` is as in `RefinementModule`.

    Args:
        reconstruction: the module of R, which is trained.
        weights: those of ``JOINT_PRESETS["equal"]`` whose image losses are given, where not given.
        images, image_losses, discriminator_chans, num_strided, dropout, normalize, label_smoothing, replay_size,
            replay_probability, lr, beta1, accumulate_grad_batches, seed, num_log_images: see `AdversarialModule`.
    """

    prefix = "reconstruction."
    suffix = ", joint training"

    @staticmethod
    def default_weights(image_losses: Iterable[str]) -> dict[str, float]:
        known = {"adversarial", "feature_matching", *image_losses}
        return {name: weight for name, weight in JOINT_PRESETS["equal"]["weights"].items() if name in known}

    def generator_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.reconstruction.parameters() if parameter.requires_grad]

    def generate(self, batch: Batch) -> tuple[Tensor, Reconstruction, Tensor | None]:
        base = self.base(batch)
        return base.image, base, None
