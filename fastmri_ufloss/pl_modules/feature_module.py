"""Training of the feature network."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fastmri_ufloss.distributed import gather_rows
from fastmri_ufloss.losses.instance_discrimination import MemoryBank, instance_discrimination_loss
from fastmri_ufloss.models.feature_net import PatchFeatureNet
from fastmri_ufloss.pl_modules.base_module import BaseModule

__all__ = ["FeatureModule"]

_MAX_PRODUCTS = 2**26  # of copies and patches at once, 256 MB
_SHIFT = 2  # pixels, in both directions
_NOISE = 0.1  # standard deviation of complex noise, relative to the scale of the image


class FeatureModule(BaseModule):
    """Trains a `PatchFeatureNet` to tell every patch of the training set from all others.

    The loss is `instance_discrimination_loss` over a memory bank of all patches, which starts with the
    features of the untrained network. After each step the rows
    of its batch are overwritten with the features the loss was computed from. Batches are those of
    `fastmri_ufloss.data.patches.PatchDataset`, (patches with margin, numbers).

    Validation asks for each held-out patch whether, of all held-out patches, it is the one closest to a
    changed copy of itself: shifted by 2 pixels, with complex noise of standard deviation 0.1, blurred by the
    mean of 3x3 pixels. The shares found are logged as ``retrieval@1_shift``, ``_noise``, ``_blur``, their
    mean as ``retrieval@1``. The loss itself says little: with temperature 1 it cannot fall by more than 2.

    Several processes give what one gives with the union of their batches: bank and retrieval cover all of them, and
    so does batch norm with ``Trainer(sync_batchnorm=True)`` on GPUs; on CPUs each process normalizes over its own
    batch. A checkpoint holds the bank, so training resumes exactly; `export` leaves it out.

    Args:
        num_patches: length of the training set.
        in_chans: 2 for complex, 1 for magnitude patches.
        num_features: d.
        patch_size: p; batches hold p + 2 * margin rows and columns.
        temperature: tau. The paper's is 1. In short trainings on cardiac images 0.1 and 0.07 alone retrieved
            better than an untrained network (``benchmarks/temperature.py``).
        lr: step size of Adam.
        phase_augmentation: multiply each training patch by a random phase. For 2 channels.
        magnitude_augmentation: multiply each training patch by a random factor in 0.9 .. 1.1.
        bank_chunk_size: rows of the bank at once.
        training_data: what the patches are, in words. Stored with the exported network.

    Raises:
        ValueError: if temperature is not positive, or phase_augmentation is set for 1 channel.

    Wang et al., MRM 2022; Wu et al., CVPR 2018.
    """

    prefix = "feature_net."

    def __init__(
        self,
        num_patches: int,
        *,
        in_chans: int = 2,
        num_features: int = 128,
        patch_size: int = 60,
        temperature: float = 0.1,
        lr: float = 1e-4,
        phase_augmentation: bool = False,
        magnitude_augmentation: bool = False,
        bank_chunk_size: int = 65536,
        training_data: str = "",
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if phase_augmentation and in_chans != 2:
            raise ValueError(f"phase_augmentation must be off for magnitude patches, got in_chans {in_chans}")
        self.save_hyperparameters()
        self.temperature = temperature
        self.lr = lr
        self.phase_augmentation = phase_augmentation
        self.magnitude_augmentation = magnitude_augmentation
        self.bank_chunk_size = bank_chunk_size
        self.feature_net = PatchFeatureNet(
            in_chans, num_features=num_features, patch_size=patch_size, training_data=training_data
        )
        self.bank = MemoryBank(num_patches, num_features)
        # the same on every rank by construction; DDP would send it around before each step
        self._ddp_params_and_buffers_to_ignore = ["bank.vectors"]
        self._held_out: list[tuple[Tensor, Tensor]] = []

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches (n, in_chans, p, p), (n, d)."""
        features: Tensor = self.feature_net(patches)
        return features

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.feature_net.parameters(), lr=self.lr)

    def on_train_start(self) -> None:
        """Fill the bank with the features of the untrained network.

        With random rows, a patch would be pulled towards a random direction throughout the first epoch.
        """
        if self.trainer.global_step > 0:
            return  # resumed: the checkpoint has the bank
        loader: Any = self.trainer.train_dataloader
        for patches, indices in tqdm(loader, desc="Memory bank", disable=not self.trainer.is_global_zero):
            with torch.no_grad():
                features = self(_crop(patches.to(self.bank.vectors), self.feature_net.patch_size))
            self.bank.update(gather_rows(indices.to(self.device)), gather_rows(features))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch (patches with margin, numbers)."""
        patches, indices = batch
        features = self(self._augment(_crop(patches, self.feature_net.patch_size)))
        loss = instance_discrimination_loss(
            features, indices, self.bank, temperature=self.temperature, chunk_size=self.bank_chunk_size
        )
        # The loss needs the bank no more. Overwritten here, and not in a later hook, a checkpoint that is
        # written right after the step has the rows in it.
        self.bank.update(gather_rows(indices), gather_rows(features.detach()))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(patches))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the patches of an earlier validation."""
        self._held_out.clear()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Features of held-out patches and of their changed copies."""
        patches, indices = batch
        size = self.feature_net.patch_size
        patch = _crop(patches, size)
        copies = (
            patch,
            _crop(patches, size, shift=_SHIFT),
            patch_with_noise(patch, indices),
            F.avg_pool2d(_crop(patches, size + 2), 3, stride=1),
        )
        features = torch.stack([self(copy) for copy in copies], dim=1)
        self._held_out.append((indices.cpu(), features.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the shares of held-out patches that are found among all of them."""
        if not self._held_out:
            return
        indices = torch.cat([indices for indices, _ in self._held_out]).to(self.device)
        features = torch.cat([features for _, features in self._held_out]).to(self.device)
        self._held_out.clear()
        found = retrieval_at_1(gather_rows(indices), gather_rows(features))
        shares = dict(zip(("shift", "noise", "blur"), found.tolist(), strict=True))
        self.log("retrieval@1", sum(shares.values()) / len(shares), prog_bar=True, sync_dist=True)
        self.log_dict({f"retrieval@1_{name}": share for name, share in shares.items()}, sync_dist=True)

    def export(self, path: str | Path) -> None:
        """Write the feature network alone, for `PatchFeatureNet.load`."""
        self.feature_net.save(path)

    def _augment(self, patches: Tensor) -> Tensor:
        if self.phase_augmentation:
            angle = 2 * torch.pi * torch.rand(len(patches), 1, 1, device=patches.device)
            real, imag = patches.unbind(dim=1)
            cos, sin = angle.cos(), angle.sin()
            patches = torch.stack([cos * real - sin * imag, sin * real + cos * imag], dim=1)
        if self.magnitude_augmentation:
            patches = patches * (0.9 + 0.2 * torch.rand(len(patches), 1, 1, 1, device=patches.device))
        return patches


def patch_with_noise(patches: Tensor, indices: Tensor, *, std: float = _NOISE) -> Tensor:
    """Patches with complex Gaussian noise of standard deviation std, that of patch i fixed by i alone.

    Args:
        patches: (n, in_chans, p, p), 2 channels for real and imaginary part, 1 for the magnitude, which then
            is |patch + noise|.
        indices: (n,), what seeds the noise of each patch, so that no split over processes changes it.
        std: of the complex number, in units of the scale of the image.

    Returns:
        The shape of patches.
    """
    shape = (2, *patches.shape[2:])
    seeds = [torch.Generator().manual_seed(index) for index in indices.tolist()]
    noise = torch.stack([torch.randn(shape, generator=seed) for seed in seeds]).to(patches) * std / 2**0.5
    if patches.shape[1] == 2:
        return patches + noise
    return torch.hypot(patches + noise[:, :1], noise[:, 1:])


def retrieval_at_1(indices: Tensor, features: Tensor, *, chunk_size: int = 1024) -> Tensor:
    """The share of patches whose changed copy is closer to themselves than to any other patch.

    Args:
        indices: (n,), numbers of the patches. Of a repeated number the first row counts.
        features: (n, 1 + copies, d), unit features of the patch and of its copies.
        chunk_size: copies that are compared at once.

    Returns:
        (copies,), each in 0 .. 1.
    """
    order = indices.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = indices[order][1:] != indices[order][:-1]
    features = features[order[first]].float()
    patches, copies = features[:, 0], features[:, 1:]
    own = torch.arange(len(patches), device=patches.device)
    found = torch.zeros(copies.shape[1], device=patches.device)
    chunk_size = max(1, min(chunk_size, _MAX_PRODUCTS // features[:, 1:, 0].numel()))
    for query, number in zip(copies.split(chunk_size), own.split(chunk_size), strict=True):
        found += ((query @ patches.T).argmax(dim=-1) == number[:, None]).sum(dim=0)
    return found / len(patches)


def _crop(patches: Tensor, size: int, *, shift: int = 0) -> Tensor:
    """The central size x size pixels of patches with margin, or those ``shift`` further down and right."""
    rows = patches.shape[-1]
    margin = (rows - size) // 2
    if patches.ndim != 4 or patches.shape[2] != rows or (rows - size) % 2 or margin < shift:
        raise ValueError(
            f"patches must be square with a margin of at least {shift} around {size}x{size}, "
            f"got {tuple(patches.shape)}"
        )
    start = margin + shift
    return patches[:, :, start : start + size, start : start + size]
