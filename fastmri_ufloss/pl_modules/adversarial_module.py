"""What adversarial trainings share: a generator and a discriminator step by step, on a reconstruction network."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from fastmri_ufloss.checks import check, check_at_least_one
from fastmri_ufloss.distributed import gather_rows, rank_and_world_size
from fastmri_ufloss.losses import nmse_loss
from fastmri_ufloss.losses.adversarial import discriminator_loss, feature_matching_loss, generator_loss
from fastmri_ufloss.losses.perceptual import PerceptualLoss
from fastmri_ufloss.losses.ufloss import UFLoss
from fastmri_ufloss.losses.weighted import LinearRamp, Weight, WeightedLoss
from fastmri_ufloss.models.refinement import PatchDiscriminator
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules.base_module import read_checkpoint
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction, data_range_of
from fastmri_ufloss.pl_modules.sense_module import MoDLModule, RecNetModule

__all__ = ["ADVERSARIAL_TERMS", "AdversarialModule", "ReplayBuffer", "load_reconstruction"]

_Module = TypeVar("_Module", bound="AdversarialModule")

RECONSTRUCTIONS: dict[str, type[MriModule]] = {
    kind.__name__: kind for kind in (RecNetModule, MoDLModule, VarNetModule, UnetModule)
}

# terms of the generator's objective that are no losses of image and reference
ADVERSARIAL_TERMS = ("adversarial", "feature_matching", "penalty")


def load_reconstruction(path: str | Path) -> MriModule:
    """The module of a checkpoint of `RecNetModule`, `MoDLModule`, `VarNetModule` or `UnetModule`.

    Raises FileNotFoundError if there is no file, ValueError for another kind of file or of model.
    """
    first = {name.partition(".")[0] for name in read_checkpoint(path)["state_dict"]}
    kinds = {kind.prefix.rstrip("."): kind for kind in RECONSTRUCTIONS.values()}
    names = first & kinds.keys()
    got = f"one whose weights are named {', '.join(sorted(first)[:4])}"
    check(len(names) == 1, str(path), f"a checkpoint of one of {', '.join(kinds)}", got)
    return kinds[names.pop()].load_from_checkpoint(path)


def _new_reconstruction(stored: Mapping[str, Any]) -> MriModule:
    # in a function of its own: Lightning 2.4 takes a caller that uses super() for a constructor
    return RECONSTRUCTIONS[stored["module"]](**stored["settings"])


class AdversarialModule(MriModule):
    """A generator against a `PatchDiscriminator`, by two Adams.

    In each step the gradients of both are taken at the weights before the step, and then both step. The gradients of
    accumulated batches are those of one large batch, but for batch norm, the random numbers, and the factors of the
    objective, which are of the first batch alone. Two processes with parts of a batch give what one gives with all of
    the batch, if batch norm does (``Trainer(sync_batchnorm=True)`` on GPUs).

    The discriminator sees 2 |x| / s - 1 with the `image_scale` s of the zero-filled image. Label smoothing, dropout
    and the replay buffer are in its own loss alone.

    The discriminator's loss and the fractions of patches that are told right are logged as ``discriminator/...``. The
    test writes ``stages/zero_filled``, ``stages/reconstruction`` and, where there is one, ``stages/reference``.

    Args:
        reconstruction: `RecNetModule`, `MoDLModule`, `VarNetModule` or `UnetModule`, a part of the checkpoint.
        images: ``"complex"`` or ``"magnitude"`` for the images; what the network gives by itself if None.
        image_losses: losses of image and reference by name, for training. Not part of the hyperparameters. A `UFLoss`
            and a `PerceptualLoss` get magnitudes, unless the UFLoss is one of complex images.
        weights: of the generator's terms, see `WeightedLoss`: ``adversarial``, ``feature_matching``, ``penalty`` if
            there is one, and the names of image_losses; `default_weights` if None.
        discriminator_chans, num_strided, dropout: see `PatchDiscriminator`.
        normalize: whether each term is divided by its value in the first batch.
        label_smoothing: what is taken from the label 1 of real images for the discriminator.
        replay_size: images of the discriminator's replay buffer, 0 for none.
        replay_probability: of a stored image to be used.
        lr: of both Adams.
        beta1: decay of their first moment.
        accumulate_grad_batches: batches of a step.
        seed: of dropout and replay buffer.
        num_log_images: validation batches whose images are logged.

    Raises:
        ValueError: if an argument is not as above; in training, before the step, if a loss or a gradient is not
            finite.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018;
    the defaults are the paper's.
    """

    automatic_optimization = False
    replaceable = (*MriModule.replaceable, "objective.terms.")
    suffix: ClassVar[str]  # what follows the reconstruction network's title

    def __init__(
        self,
        reconstruction: MriModule,
        *,
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
        super().__init__(num_log_images=num_log_images)
        check_at_least_one(accumulate_grad_batches=accumulate_grad_batches)
        check(images in (None, "complex", "magnitude"), "images", "'complex' or 'magnitude'", repr(images))
        fits = images != "complex" or reconstruction.is_complex
        check(fits, "images", f"'magnitude' for {reconstruction.title}", "'complex'")
        weights = self.default_weights(image_losses or {}) if weights is None else weights
        self.save_hyperparameters(ignore=["weights"])
        plain = {name: str(weight) if isinstance(weight, LinearRamp) else weight for name, weight in weights.items()}
        self.save_hyperparameters({"weights": plain})
        self.reconstruction = reconstruction
        self.title = reconstruction.title + self.suffix
        self.samples = reconstruction.samples
        self.is_complex = reconstruction.is_complex and images != "magnitude"
        self.discriminator = PatchDiscriminator(chans=discriminator_chans, num_strided=num_strided, dropout=dropout)
        terms = {name: _take_magnitudes(loss) for name, loss in (image_losses or {}).items()}
        self.objective = WeightedLoss(terms, weights, normalize=normalize)
        self.replay = ReplayBuffer(replay_size, probability=replay_probability)
        self.generator = torch.Generator().manual_seed(seed)
        self._accumulated = 0

    @classmethod
    def load_from_checkpoint(
        cls: type[_Module], checkpoint_path: str | Path, map_location: torch.device | str = "cpu", **kwargs: Any
    ) -> _Module:
        checkpoint = read_checkpoint(checkpoint_path, prefix=cls.prefix)
        if cls.prefix != "refinement." and any(name.startswith("refinement.") for name in checkpoint["state_dict"]):
            raise ValueError(f"{checkpoint_path} is a checkpoint of another model: a refinement, not joint training")
        stored = checkpoint.get("reconstruction")
        if stored is None:
            raise ValueError(f"{checkpoint_path} was written before version 0.2, without the network's settings")
        if "reconstruction" not in kwargs:
            kwargs["reconstruction"] = _new_reconstruction(stored)
        return super().load_from_checkpoint(checkpoint_path, map_location, **kwargs)

    @staticmethod
    @abstractmethod
    def default_weights(image_losses: Iterable[str]) -> dict[str, float]:
        """The weights of the generator's terms, for image losses of these names."""

    @abstractmethod
    def generate(self, batch: Batch) -> tuple[Tensor, Reconstruction, Tensor | None]:
        """The generated image (batch, 1, rows, cols), the reconstruction network's, and what the penalty is of."""

    def reconstruct(self, batch: Batch) -> Reconstruction:
        image, base, _ = self.generate(batch)
        return base._replace(image=image)

    def base(self, batch: Batch) -> Reconstruction:
        """The reconstruction network's images, of the kind that is generated."""
        result = self.reconstruction.reconstruct(batch)
        return result if self.is_complex or not self.reconstruction.is_complex else result.magnitudes()

    def forward(self, batch: Batch) -> Tensor:
        """Image (batch, 1, rows, cols) of a batch."""
        return self.reconstruct(batch).image

    def weighted_loss(self) -> WeightedLoss:
        return self.objective

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options = {"lr": self.hparams.lr, "betas": (self.hparams.beta1, 0.999)}
        others = ("discriminator.", "objective.", "metrics.")
        generator = [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith(others)]
        return [
            torch.optim.Adam(parameters, **options) for parameters in (generator, self.discriminator.parameters())
        ]

    def on_fit_start(self) -> None:
        names = {name for name in self.objective.weights if name not in ADVERSARIAL_TERMS}
        terms = set(self.objective.terms)
        check(names == terms, "image_losses", f"those of the weights, {sorted(names)}", sorted(terms))
        precision = self.trainer.precision
        got = f"{precision!r}, whose gradient scale is not made for two optimizers"
        check(precision != "16-mixed", "precision", "'bf16-mixed' or '32-true'", got)
        if getattr(self.trainer.datamodule, "batch_size", None) == 1 and self.trainer.world_size == 1:
            rank_zero_warn("batch_size is 1, the paper's is 5: batch norm then normalizes each image by itself")

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image, base, change = self.generate(batch)
        reference = _reference_of(base, batch)
        scale = image_scale(base.zero_filled).reshape(-1, 1, 1, 1)
        fake, real = (2 * x.abs() / scale - 1 for x in (image, reference))
        values = self._adversarial_terms(fake, real)
        if change is not None:
            values["penalty"] = change.abs().mean()
        loss = self.objective(image, reference, data_range_of(reference), values=values)
        stored = list(self.replay.images)
        discriminator_value = self._discriminator_loss(fake.detach(), real)
        losses = {"generator": loss.detach(), "discriminator": discriminator_value.detach()}
        # one pass: each parameter gets its gradient once, as data-parallel training expects
        self.manual_backward((loss + discriminator_value) / self.hparams.accumulate_grad_batches)
        self._accumulated += 1
        is_step = self._accumulated == self.hparams.accumulate_grad_batches or self.trainer.is_last_batch
        largest = [p.grad.abs().max() for p in self.parameters() if p.grad is not None] if is_step else []
        found = torch.stack([*losses.values(), *largest]).cpu()  # here alone, as a GPU must be waited for
        if not bool(found.isfinite().all()):
            self.replay.images = stored
            self._stop(losses)
        if is_step:
            self._step()
        self.log("train_loss", found[0], prog_bar=True, batch_size=len(fake))
        self.log("discriminator/loss", found[1], batch_size=len(fake))
        for name, factor in self.objective.factors.items():
            self.log(f"train_factors/{name}", factor, batch_size=len(fake))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        self.check_target(batch)
        image, base, _ = self.generate(batch)
        reference = _reference_of(base, batch)
        loss_function = dict(self.objective.terms).get("perceptual", nmse_loss)
        loss = loss_function(image, reference, data_range_of(reference))
        if self.val_log_indices is not None and batch_idx in self.val_log_indices:
            change = (image - base.image)[0].abs()
            self.log_image(f"val_images_idx_{batch_idx}/change", change / change.max())
        # the target of a U-Net's sample is normalized
        target = reference[:, 0] if self.samples == "unet" else batch.target
        return self.val_logs(batch, batch_idx, image, target, loss)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        image, base, _ = self.generate(batch)
        stages = {"zero_filled": base.zero_filled, "reconstruction": base.image}
        if base.reference is not None:
            stages["reference"] = base.reference
        return self.test_logs(batch, image, stages)

    def on_before_backward(self, loss: Tensor) -> None:
        """Nothing: `training_step` looks at the losses together with their gradients."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        settings = dict(self.reconstruction.hparams)
        checkpoint["reconstruction"] = {"module": type(self.reconstruction).__name__, "settings": settings}
        checkpoint["adversarial"] = {"replay": self.replay.state_dict(), "generator": self.generator.get_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "adversarial" in checkpoint:
            self.replay.load_state_dict(checkpoint["adversarial"]["replay"])
            self.generator.set_state(checkpoint["adversarial"]["generator"].cpu())

    def _adversarial_terms(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The discriminator's terms of the generator's objective; no gradient reaches the discriminator."""
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        seen = torch.func.functional_call(self.discriminator, constants, (fake,))
        terms = {"adversarial": generator_loss(seen.logits)}
        if "feature_matching" in self.objective.weights:
            with torch.no_grad():
                # with constants here as well: under autocast some versions of torch keep the casts of parameters that
                # were made without gradients, and the discriminator's own pass would meet them
                wanted = torch.func.functional_call(self.discriminator, constants, (real,))
            terms["feature_matching"] = feature_matching_loss(wanted.features, seen.features)
        return terms

    def _discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """The discriminator's loss of real and replayed images, with dropout."""
        rank, world_size = rank_and_world_size()
        mine = slice(rank * len(fake), (rank + 1) * len(fake))
        replayed = self.replay(gather_rows(fake), self.generator)[mine]
        seen = []
        for images in (real, replayed):
            masks = self.discriminator.draw_dropout(len(images) * world_size, self.generator)
            masks = [mask[mine].to(images) for mask in masks]
            seen.append(self.discriminator(images, dropout=masks).logits)
        right = [(seen[0] > 0).float().mean(), (seen[1] < 0).float().mean()]
        fractions = {"right_of_real": right[0], "right_of_generated": right[1], "accuracy": (right[0] + right[1]) / 2}
        for name, fraction in fractions.items():
            self.log(f"discriminator/{name}", fraction, batch_size=len(fake))
        return discriminator_loss(*seen, label_smoothing=self.hparams.label_smoothing)

    def _step(self) -> None:
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        self._accumulated = 0

    def _stop(self, losses: Mapping[str, Tensor]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(float(value))]
        problem = f"the {' and the '.join(bad) or 'gradient'} became not finite"
        self.stop_training(problem, {**losses, **self.loss_terms()})


def _reference_of(base: Reconstruction, batch: Batch) -> Tensor:
    if base.reference is None:
        raise ValueError(f"{batch.fname[0]} has no reference, which training and validation need")
    return base.reference


class _MagnitudeLoss(nn.Module):
    """A loss of the magnitudes of complex images."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
        value: Tensor = self.loss(output.abs(), target.abs(), data_range)
        return value


def _take_magnitudes(loss: nn.Module) -> nn.Module:
    of_magnitudes = isinstance(loss, PerceptualLoss) or (isinstance(loss, UFLoss) and loss.feature_net.in_chans == 1)
    return _MagnitudeLoss(loss) if of_magnitudes else loss


class ReplayBuffer:
    """Generated images of earlier steps, for the discriminator.

    Image by image: until the buffer is full, the present image is stored and used. Then, with the probability p, a
    random stored image is used and the present one takes its place; otherwise the present one is used and not
    stored. Images of several sizes share the buffer: only one of the present image's size can be used, and where
    there is none the present one is used, and with the probability p takes the place of a random one. A size below 0
    (0 is no buffer), or a p that is not in 0 .. 1, raises ValueError.

    Shrivastava et al., "Learning from simulated and unsupervised images through adversarial training", CVPR 2017.
    """

    def __init__(self, size: int = 80, *, probability: float = 0.5) -> None:
        check(size >= 0, "size", "at least 0", size)
        check(0 <= probability <= 1, "probability", "in 0 .. 1", probability)
        self.size = size
        self.probability = probability
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the discriminator is to see instead of the images (batch, ...) of this step, without gradient."""
        used = [self._replace(image, generator) for image in images.detach()]
        return torch.stack([image.to(images, non_blocking=True) for image in used])

    def _replace(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if not self.size or torch.rand((), generator=generator) >= self.probability:
            return image
        same_size = [index for index, stored in enumerate(self.images) if stored.shape == image.shape]
        candidates = same_size or list(range(self.size))
        chosen = candidates[int(torch.randint(len(candidates), (), generator=generator))]
        stored, self.images[chosen] = self.images[chosen], image.clone()
        return stored if same_size else image

    def state_dict(self) -> dict[str, Any]:
        """The images, on the CPU."""
        return {"images": [image.cpu() for image in self.images]}

    def load_state_dict(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Take the images of a checkpoint."""
        self.images = list(state["images"])[: self.size]
