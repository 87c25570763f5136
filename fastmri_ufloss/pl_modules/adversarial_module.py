"""What adversarial trainings share: a generator and a discriminator, step by step."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from fastmri.data.transforms import center_crop_to_smallest
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from fastmri_ufloss.losses.adversarial import discriminator_loss, feature_matching_loss, generator_loss
from fastmri_ufloss.losses.nmse import nmse_loss
from fastmri_ufloss.losses.normalized_sum import NormalizedSum
from fastmri_ufloss.losses.perceptual import PerceptualLoss
from fastmri_ufloss.losses.ufloss import UFLoss
from fastmri_ufloss.models.discriminator import PatchDiscriminator
from fastmri_ufloss.models.sync_batch_norm import convert_sync_batch_norm
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules.adversarial_settings import AdversarialSettings
from fastmri_ufloss.pl_modules.reconstructor import Reconstructor
from fastmri_ufloss.pl_modules.replay_buffer import ReplayBuffer
from fastmri_ufloss.pl_modules.stages import Generated, StagesTest

__all__ = ["AdversarialModule", "load_adversarial_module"]

_Module = TypeVar("_Module", bound="AdversarialModule")

Batch = Any  # what the reconstruction network takes


class AdversarialModule(StagesTest):
    """A generator against a `PatchDiscriminator`, by two Adams.

    In each step the gradients of both are taken at the weights before the step, the discriminator's parameters being
    constants for the generator and the generated images for the discriminator; then both step. So no graph outlives a
    change of weights, and the gradients of accumulated batches are those of one large batch, but for batch norm, the
    random numbers, and the factors of the objective, which are of the first batch alone.

    The discriminator sees magnitudes divided by `image_scale` of the zero-filled image, the same for real and
    generated ones, times 2 less 1. In its own loss there are label smoothing, dropout and a replay buffer; in the
    generator's adversarial loss and feature matching there are none of them.

    All processes draw the same random numbers, for the images of all of them, and statistics of batch norm are
    those of all: two processes with parts of a batch give what one gives with all of it. Generator and Adams, images
    of the buffer, state of the random numbers and factors of the objective are in the checkpoint.

    Terms are logged as ``train_terms/NAME``, the discriminator's loss and the shares of patches that it tells right
    as ``discriminator/...``. A loss or a gradient that is not finite stops the training before the step.

    Args:
        recon: ``{"network": a name of `NETWORKS`, "settings": the hyperparameters of its module}``, and the kind of
            ``"images"``, see `Reconstructor`.
        weights: of the generator's terms: ``adversarial``, ``feature_matching``, ``penalty`` if there is one, and
            the names of image_losses.
        image_losses: losses of image and reference by name, called like any other loss. Not part of the
            hyperparameters. A `UFLoss` and a `PerceptualLoss` get magnitudes, unless the UFLoss is one of complex
            images. Only training needs them.
        discriminator: settings of `PatchDiscriminator`.
        settings: of `AdversarialSettings`.
        num_log_images: validation batches whose images are logged.

    Raises:
        ValueError: if an argument is not as above.
    """

    automatic_optimization = False

    def __init__(
        self,
        *,
        recon: Mapping[str, Any],
        weights: Mapping[str, float],
        image_losses: Mapping[str, nn.Module] | None,
        discriminator: Mapping[str, Any] | None,
        settings: Mapping[str, Any] | None,
        num_log_images: int,
    ) -> None:
        super().__init__(num_log_images=num_log_images)
        plain = {"recon": recon, "weights": weights, "discriminator": discriminator, "settings": settings}
        self.save_hyperparameters({name: dict(value or {}) for name, value in plain.items()})
        self.save_hyperparameters({"num_log_images": num_log_images})
        self.settings = AdversarialSettings(**dict(settings or {}))
        self.reconstructor = Reconstructor(**dict(recon))
        self.discriminator = PatchDiscriminator(**dict(discriminator or {}))
        convert_sync_batch_norm(self.discriminator)
        self.image_losses = nn.ModuleDict(image_losses or {})
        self.objective = NormalizedSum(weights, normalize=self.settings.normalize)
        self.replay = ReplayBuffer(self.settings.replay_size, probability=self.settings.replay_probability)
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self._accumulated = 0
        self._losses: dict[str, Tensor] = {}

    @abstractmethod
    def generator_parameters(self) -> list[nn.Parameter]:
        """What the generator's Adam changes."""

    def forward(self, batch: Batch) -> Tensor:
        """Image (batch, 1, rows, cols) of a batch, see `generate`."""
        return self.generate(batch).image

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options: dict[str, Any] = {"lr": self.settings.lr, "betas": (self.settings.beta1, 0.999)}
        return [
            torch.optim.Adam(self.generator_parameters(), **options),
            torch.optim.Adam(self.discriminator.parameters(), **options),
        ]

    def on_fit_start(self) -> None:
        names = {
            name for name in self.objective.weights if name not in ("adversarial", "feature_matching", "penalty")
        }
        if names != set(self.image_losses):
            raise ValueError(
                f"image_losses must be those of the weights, {sorted(names)}, got {sorted(self.image_losses)}"
            )
        if self.trainer.precision == "16-mixed":
            raise ValueError(
                "precision must be 'bf16-mixed' or '32-true', got '16-mixed', whose gradient scale is not made for "
                "two optimisers"
            )
        batch_size = getattr(self.trainer.datamodule, "batch_size", None)
        if batch_size == 1 and self.trainer.world_size == 1:
            rank_zero_warn(
                "batch_size is 1: batch norm then normalises each image by itself, in training and not afterwards; "
                "5 is the paper's"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        generated = self.generate(batch)
        target = generated.base.target
        if not target.numel():
            raise ValueError(f"{batch.fname[0]} has no reference, which training needs")
        scale = image_scale(generated.base.zero_filled).reshape(-1, 1, 1, 1)
        fake, real = (2 * image.abs() / scale - 1 for image in (generated.image, target))
        terms = self._generator_terms(generated, fake, real)
        loss = self.objective(terms)
        self._losses = {"generator": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
        if not bool(loss.detach().isfinite()):  # before its images get into the replay buffer
            raise ValueError(self._stopped())
        discriminator_value = self._discriminator_loss(fake.detach(), real)
        self._losses["discriminator"] = discriminator_value.detach()
        # one pass: each parameter gets its gradient once, as data-parallel training expects
        self.manual_backward((loss + discriminator_value) / self.settings.accumulate_grad_batches)
        self._accumulated += 1
        if self._accumulated == self.settings.accumulate_grad_batches or self.trainer.is_last_batch:
            self._step()
        self._log(terms, loss.detach(), len(fake))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        generated = self.generate(batch)
        target = generated.base.target
        if batch.target.ndim != 3 or not target.numel():
            raise ValueError(f"{batch.fname[0]} has no reference, which validation needs")
        names = [name for name in ("perceptual",) if name in self.image_losses]
        loss = self._image_loss(names[0], generated.image, target) if names else nmse_loss(generated.image, target)
        if self.val_log_indices is not None and batch_idx in self.val_log_indices:
            change = (generated.image - generated.base.image)[0].abs()
            self.log_image(f"val_images_idx_{batch_idx}/change", change / change.max())
        # of the U-Net the sample's target is normalised
        reference = target[:, 0] if self.reconstructor.name == "unet" else batch.target
        reference, output = center_crop_to_smallest(reference, generated.image[:, 0].abs())
        return {
            "batch_idx": batch_idx,
            "fname": batch.fname,
            "slice_num": batch.slice_num,
            "max_value": batch.max_value,
            "output": output,
            "target": reference,
            "val_loss": loss,
        }

    def on_before_backward(self, loss: Tensor) -> None:
        if not bool(loss.detach().isfinite().all()):
            raise ValueError(self._stopped())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["adversarial"] = {"replay": self.replay.state_dict(), "generator": self.generator.get_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "adversarial" in checkpoint:
            self.replay.load_state_dict(checkpoint["adversarial"]["replay"])
            self.generator.set_state(checkpoint["adversarial"]["generator"].cpu())

    def _generator_terms(self, generated: Generated, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The terms of the generator's objective; no gradient reaches the discriminator."""
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        seen = torch.func.functional_call(self.discriminator, constants, (fake,))
        terms = {"adversarial": generator_loss(seen.logits)}
        if "feature_matching" in self.objective.weights:
            with torch.no_grad():
                # with constants here as well: under autocast some versions of torch keep the casts of parameters that
                # were made without gradients, and the discriminator's own pass would find them
                wanted = torch.func.functional_call(self.discriminator, constants, (real,))
            terms["feature_matching"] = feature_matching_loss(wanted.features, seen.features)
        for name in self.image_losses:
            terms[name] = self._image_loss(name, generated.image, generated.base.target)
        if generated.change is not None:
            terms["penalty"] = generated.change.abs().mean()
        return terms

    def _image_loss(self, name: str, image: Tensor, target: Tensor) -> Tensor:
        loss = self.image_losses[name]
        if isinstance(loss, PerceptualLoss) or (isinstance(loss, UFLoss) and loss.feature_net.in_chans == 1):
            image, target = image.abs(), target.abs()
        data_range = target.abs().amax(dim=(1, 2, 3))
        value: Tensor = loss(image, target, torch.where(data_range > 0, data_range, 1.0))
        return value

    def _discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """The discriminator's loss of real and replayed images, with dropout."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
        mine = slice(rank * len(fake), (rank + 1) * len(fake))
        replayed = self.replay(_of_all_processes(fake), self.generator)[mine]
        seen = []
        for images in (real, replayed):
            masks = self.discriminator.draw_dropout(len(images) * world_size, self.generator)
            masks = [mask[mine].to(images) for mask in masks]
            seen.append(self.discriminator(images, dropout=masks).logits)
        with torch.no_grad():
            right = (seen[0] > 0).float().mean(), (seen[1] < 0).float().mean()
        self.log("discriminator/right_of_real", right[0], batch_size=len(fake))
        self.log("discriminator/right_of_generated", right[1], batch_size=len(fake))
        self.log("discriminator/accuracy", (right[0] + right[1]) / 2, batch_size=len(fake))
        return discriminator_loss(*seen, label_smoothing=self.settings.label_smoothing)

    def _step(self) -> None:
        optimizers: Any = self.optimizers()
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if not bool(torch.stack([g.abs().max() for g in gradients]).isfinite().all()):
            raise ValueError(self._stopped())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._accumulated = 0

    def _stopped(self) -> str:
        """What to say of a loss or a gradient that is not finite."""
        values = {name: float(value) for name, value in self._losses.items()}
        bad = [name for name in ("generator", "discriminator") if not math.isfinite(values.get(name, 0.0))]
        batch = self._train_batch
        slices = zip(batch.fname, torch.as_tensor(batch.slice_num).tolist(), strict=True)
        return (
            f"the {' and the '.join(bad) or 'gradient'} became not finite in epoch {self.current_epoch}, step "
            f"{self.trainer.fit_loop.total_batch_idx} on "
            f"{', '.join(f'{fname}, slice {number}' for fname, number in slices)}: the losses are {values}. The "
            "weights are still those of the step before, and the checkpoints on disk are of earlier steps; look at "
            "these data, or lower the learning rate"
        )

    def _log(self, terms: Mapping[str, Tensor], loss: Tensor, batch_size: int) -> None:
        self.log("train_loss", loss, prog_bar=True, batch_size=batch_size)
        self.log("discriminator/loss", self._losses["discriminator"], batch_size=batch_size)
        for name, value in terms.items():
            self.log(f"train_terms/{name}", value.detach(), batch_size=batch_size)
        for name, factor in self.objective.factors.items():
            self.log(f"train_factors/{name}", factor, batch_size=batch_size)


def load_adversarial_module(
    kind: type[_Module], path: str | Path, checkpoint: Mapping[str, Any], options: Mapping[str, Any]
) -> _Module:
    """The module of a checkpoint that was read from ``path``, with further arguments.

    Raises:
        ValueError: if the checkpoint does not fit.
    """
    try:
        module = kind(**{**checkpoint.get("hyper_parameters", {}), **options})
        module.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not fit its own settings ({error})") from error
    return module


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _of_all_processes(images: Tensor) -> Tensor:
    """The images of all processes, in the order of their ranks; all have equally many, of one size."""
    if not _is_distributed():
        return images
    gathered = [torch.empty_like(images) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, images.contiguous())
    return torch.cat(gathered)
