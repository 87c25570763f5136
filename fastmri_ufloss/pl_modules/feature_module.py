"""Pretraining of the feature network: the patches of a data set, and the module that learns to tell them apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.loading import ResumableLoader
from fastmri_ufloss.data.patches import PatchDataset, PatchSettings, patch_file_name, write_volume_patches
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import collate
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.distributed import gather_rows
from fastmri_ufloss.losses.instance_discrimination import MemoryBank, instance_discrimination_loss
from fastmri_ufloss.models.feature_net import Architecture, PatchFeatureNet
from fastmri_ufloss.pl_modules.base_module import BaseModule
from fastmri_ufloss.pl_modules.data_module import DataModule, MriDataModule
from fastmri_ufloss.pl_modules.mri_module import with_maps

__all__ = ["FeatureModule", "PatchDataModule"]

MAX_HELD_OUT = 8192  # patches of the validation: retrieval compares each with all
_MAX_PRODUCTS = 2**26  # of copies and patches at once, 256 MB
_SHIFT = 2  # pixels, in both directions
_NOISE = 0.1  # standard deviation of complex noise, relative to the scale of the image


class PatchDataModule(DataModule):
    """Patches of the references that a `MriDataModule` gives, for `FeatureModule`.

    The patches are cut once and kept on disk; their numbers follow the names of the volumes and the slices.

    Args:
        source: of the slices; for ``"combined"`` with transforms that make a `MoDLSample`.
        patch_dir: folder for the patches.
        patch_size: rows and columns of a patch.
        patches_per_slice: number of patches, at random places.
        images: ``"combined"`` for the complex coil-combined reference (2 channels), ``"rss"`` for the file's
            root-sum-of-squares or single-coil image (1 channel).
        batch_size, num_workers: of the loaders.
        seed: of the places and of the shuffling.
    """

    def __init__(
        self,
        source: MriDataModule,
        *,
        patch_dir: str | Path,
        patch_size: int = 60,
        patches_per_slice: int = 80,
        images: Literal["combined", "rss"] = "combined",
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check(images in ("combined", "rss"), "images", "'combined' or 'rss'", repr(images))
        self.source = source
        self.patch_dir = Path(patch_dir)
        self.images = images
        self.in_chans = 2 if images == "combined" else 1
        self.patch_size = patch_size
        self.patches_per_slice = patches_per_slice
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def num_patches(self) -> int:
        """Number of training patches, without cutting them."""
        self.prepare_data()
        return len(self.source.dataset("train")) * self.patches_per_slice

    def prepare_data(self) -> None:
        for split in ("train", "val"):
            self.source.build_index(split)

    def setup(self, stage: str) -> None:
        train_files, val_files = self._cut("train"), self._cut("val")
        if self.trainer is not None:
            self.trainer.strategy.barrier("patches")
        self.train_patches, self.val_patches = PatchDataset(train_files), PatchDataset(val_files)

    def train_dataloader(self) -> ResumableLoader:
        return self.shuffled_loader(self.train_patches, [0] * len(self.train_patches))

    def val_dataloader(self) -> DataLoader:
        count = len(self.val_patches)
        held_out = range(0, count, -(-count // MAX_HELD_OUT))
        batch_size = max(self.batch_size, 64)
        return self.ordered_loader(self.val_patches, [0] * count, self.equal_part(held_out), batch_size=batch_size)

    def _cut(self, split: str) -> list[Path]:
        """The patch files of a split; this process makes its part of those that are missing."""
        dataset = self.source.dataset(split, whole=True)
        volumes: dict[Path, list[int]] = {}
        for index, sample in enumerate(dataset.raw_samples):
            volumes.setdefault(sample.fname, []).append(index)
        self.patch_dir.mkdir(parents=True, exist_ok=True)
        settings = PatchSettings(self.patch_size, self.patches_per_slice, self.seed)
        files = {}
        for volume in sorted(volumes):
            source = self._source(volume, volumes[volume], dataset)
            files[volume] = self.patch_dir / patch_file_name(volume, settings, in_chans=self.in_chans, source=source)
        missing = [(volume, file) for volume, file in files.items() if not file.is_file()]
        rank, world_size = self.rank_and_world_size()
        mine = missing[rank::world_size]
        for volume, file in tqdm(mine, desc=f"Patches of {split}", unit="volume", disable=not mine):
            references = self._references(dataset, volumes[volume])
            write_volume_patches(file, references, settings, volume_name=volume.name)
        return list(files.values())

    def _source(self, volume: Path, indices: list[int], dataset: IndexedSliceDataset) -> str:
        """What the patches of a volume are cut from, in words."""
        slices = [dataset.raw_samples[index].slice_ind for index in indices]
        if self.images == "rss":
            return f"{self.images} {slices}"
        transform = self.source.train_transform
        maps = "device" if transform.sens_maps is None else transform.sens_maps.key(volume)
        masks = transform.mask_func
        center = [getattr(masks, name, None) for name in ("center_fractions", "center_size")]
        rows = " crop_rows" if transform.crop_rows else ""
        matrix = dataset.raw_samples[indices[0]].metadata.get("coil_compression_matrix")
        coils = "" if matrix is None else f" {matrix.tobytes().hex()}"
        return f"{self.images} {maps} {type(masks).__name__} {center} {slices}{rows}{coils}"

    def _references(self, dataset: IndexedSliceDataset, indices: list[int]) -> Iterator[Tensor]:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        for index in indices:
            if self.images == "rss":
                yield _file_image(dataset, index)
                continue
            batch = with_maps(self.transfer_batch_to_device(collate([dataset[index]]), device, 0))
            if batch.reference is None:
                raise ValueError(f"{batch.fname[0]} is undersampled: patches need full k-space")
            yield batch.reference[0].cpu()


def _file_image(dataset: IndexedSliceDataset, index: int) -> Tensor:
    """The root-sum-of-squares or single-coil image of a slice, without reading its k-space."""
    sample = dataset.raw_samples[index]
    with open_hdf5(sample.fname, dataset.recons_key) as volume:
        return torch.from_numpy(volume[dataset.recons_key][sample.slice_ind]).float()


class FeatureModule(BaseModule):
    """Trains a `PatchFeatureNet` to tell every patch of the training set from all others.

    The loss is `instance_discrimination_loss` over a memory bank of the features of all patches, those that the
    untrained network gives at first, and then those that the loss of a patch was computed from. Batches are those of
    `fastmri_ufloss.data.patches.PatchDataset`, (patches with margin, numbers).

    Validation logs the fractions of held-out patches that, of all, are closest to a changed copy of themselves:
    shifted by 2 pixels, with complex noise of standard deviation 0.1, blurred by the mean of 3x3 pixels, as
    ``retrieval@1_shift``, ``_noise``, ``_blur``, and their mean as ``retrieval@1``.

    Several processes give what one gives with the union of their batches, if batch norm does
    (``Trainer(sync_batchnorm=True)`` on GPUs).

    Args:
        num_patches: length of the training set.
        in_chans: 2 for complex, 1 for magnitude patches.
        architecture, width, num_features: see `PatchFeatureNet`.
        patch_size: p; batches hold p + 2 * margin rows and columns.
        temperature: tau. The paper's is 1. In short trainings on cardiac images 0.1 and 0.07 alone retrieved
            better than an untrained network (``benchmarks/feature_nets.py``).
        lr: step size of Adam at the start; it falls along a cosine to 0 at the trainer's last step.
        phase_augmentation: turn each training patch by a random phase, a polynomial of the second degree in row and
            column. For 2 channels.
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
        architecture: Architecture = "resnet18",
        width: int | None = None,
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
        check(temperature > 0, "temperature", "positive", temperature)
        fits = in_chans == 2 or not phase_augmentation
        check(fits, "phase_augmentation", "off for magnitude patches", f"in_chans {in_chans}")
        self.save_hyperparameters()
        self.feature_net = PatchFeatureNet(
            in_chans,
            num_features=num_features,
            patch_size=patch_size,
            architecture=architecture,
            width=width,
            training_data=training_data,
        )
        self.bank = MemoryBank(num_patches, num_features)
        # the same on every rank by construction; DDP would send it around before each step
        self._ddp_params_and_buffers_to_ignore = ["bank.vectors"]
        self._held_out: list[tuple[Tensor, Tensor]] = []

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches (n, in_chans, p, p), (n, d)."""
        features: Tensor = self.feature_net(patches)
        return features

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        return self.with_cosine(torch.optim.Adam(self.feature_net.parameters(), lr=self.hparams.lr))

    def on_train_start(self) -> None:
        if self.trainer.global_step > 0:
            return  # resumed: the checkpoint has the bank
        # with random rows, a patch would be pulled towards a random direction throughout the first epoch
        loader: Any = self.trainer.train_dataloader
        for patches, indices in tqdm(loader, desc="Memory bank", disable=not self.trainer.is_global_zero):
            with torch.no_grad():
                features = self(_crop(patches.to(self.bank.vectors), self.feature_net.patch_size))
            self.bank.update(gather_rows(indices.to(self.device)), gather_rows(features))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        patches, indices = batch
        features = self(self._augment(_crop(patches, self.feature_net.patch_size)))
        settings = {"temperature": self.hparams.temperature, "chunk_size": self.hparams.bank_chunk_size}
        loss = instance_discrimination_loss(features, indices, self.bank, **settings)
        # The loss needs the bank no more. Overwritten here, and not in a later hook, a checkpoint that is
        # written right after the step has the rows in it.
        self.bank.update(gather_rows(indices), gather_rows(features.detach()))
        self.log("train_loss", self.checked(loss), prog_bar=True, batch_size=len(patches))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._held_out.clear()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        patches, indices = batch
        size = self.feature_net.patch_size
        patch = _crop(patches, size)
        shifted, noisy = _crop(patches, size, shift=_SHIFT), patch_with_noise(patch, indices)
        blurred = F.avg_pool2d(_crop(patches, size + 2), 3, stride=1)
        features = torch.stack([self(copy) for copy in (patch, shifted, noisy, blurred)], dim=1)
        self._held_out.append((indices.cpu(), features.cpu()))

    def on_validation_epoch_end(self) -> None:
        if not self._held_out:
            return
        indices = torch.cat([indices for indices, _ in self._held_out]).to(self.device)
        features = torch.cat([features for _, features in self._held_out]).to(self.device)
        self._held_out.clear()
        fractions = retrieval_at_1(gather_rows(indices), gather_rows(features)).tolist()
        self.log("retrieval@1", sum(fractions) / len(fractions), prog_bar=True, sync_dist=True)
        for name, fraction in zip(("shift", "noise", "blur"), fractions, strict=True):
            self.log(f"retrieval@1_{name}", fraction, sync_dist=True)

    def export(self, path: str | Path) -> None:
        """Write the feature network alone, for `PatchFeatureNet.load`."""
        self.feature_net.save(path)

    def _augment(self, patches: Tensor) -> Tensor:
        if self.hparams.phase_augmentation:
            turned = torch.view_as_complex(patches.movedim(1, -1).contiguous()) * _random_phase(patches)
            patches = torch.view_as_real(turned).movedim(-1, 1)
        if self.hparams.magnitude_augmentation:
            patches = patches * (0.9 + 0.2 * torch.rand(len(patches), 1, 1, 1, device=patches.device))
        return patches


def _random_phase(patches: Tensor) -> Tensor:
    """A smooth factor of magnitude 1 for each patch, (n, p, p)."""
    lines = (torch.linspace(-1, 1, size, device=patches.device) for size in patches.shape[2:])
    rows, cols = torch.meshgrid(*lines, indexing="ij")
    terms = [torch.ones_like(rows), rows, cols, rows * cols, rows**2, cols**2]
    spread = torch.tensor([2 * torch.pi, 1.5, 1.5, 0.7, 0.7, 0.7]).to(patches.device, non_blocking=True)
    angle = torch.einsum(
        "nk,kij->nij", spread * torch.randn(len(patches), 6, device=patches.device), torch.stack(terms)
    )
    return torch.polar(torch.ones_like(angle), angle)


def patch_with_noise(patches: Tensor, indices: Tensor, *, std: float = _NOISE) -> Tensor:
    """Patches (n, in_chans, p, p) with complex Gaussian noise, relative to the scale of the image.

    A magnitude, of 1 channel, becomes |patch + noise|. The indices, (n,), seed the noise of each patch, so that no
    split over processes changes the noise.
    """
    shape = (2, *patches.shape[2:])
    seeds = [torch.Generator().manual_seed(index) for index in indices.tolist()]
    noise = torch.stack([torch.randn(shape, generator=seed) for seed in seeds]).to(patches) * std / 2**0.5
    if patches.shape[1] == 2:
        return patches + noise
    return torch.hypot(patches + noise[:, :1], noise[:, 1:])


def retrieval_at_1(indices: Tensor, features: Tensor, *, chunk_size: int = 1024) -> Tensor:
    """The fraction of patches, (copies,), whose changed copy is closer to themselves than to any other patch.

    Indices, (n,), are the numbers of the patches, and features, (n, 1 + copies, d), those of the patch and of its
    copies. Where an index is repeated the first row counts.
    """
    order = indices.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = indices[order][1:] != indices[order][:-1]
    features = features[order[first]].float()
    patches, copies = features[:, 0], features[:, 1:]
    rows = torch.arange(len(patches), device=patches.device)
    counts = torch.zeros(copies.shape[1], device=patches.device)
    chunk_size = max(1, min(chunk_size, _MAX_PRODUCTS // features[:, 1:, 0].numel()))
    for queries, expected in zip(copies.split(chunk_size), rows.split(chunk_size), strict=True):
        counts += ((queries @ patches.T).argmax(dim=-1) == expected[:, None]).sum(dim=0)
    return counts / len(patches)


def _crop(patches: Tensor, size: int, *, shift: int = 0) -> Tensor:
    """The central size x size pixels of patches with margin, or those ``shift`` further down and right."""
    rows = patches.shape[-1]
    margin = (rows - size) // 2
    fits = patches.ndim == 4 and patches.shape[2] == rows and (rows - size) % 2 == 0 and margin >= shift
    expected = f"square with a margin of at least {shift} around {size}x{size}"
    check(fits, "patches", expected, tuple(patches.shape))
    start = margin + shift
    return patches[:, :, start : start + size, start : start + size]
