"""From a slice of a volume to the sample that a network is trained with."""

import zlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fastmri.data.transforms
import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import UnetSample, apply_mask, tensor_to_complex_np, to_tensor
from numpy import ndarray
from torch import Tensor
from torch.utils.data._utils.collate import collate as torch_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from fastmri_ufloss.checks import check, check_at_least_one
from fastmri_ufloss.data.sampling import find_sampling, mask_of_size, sampled_points
from fastmri_ufloss.data.sens_maps import ScanSlice, SensMapCache, SensMapSource
from fastmri_ufloss.mri.center import MIN_CENTER_LINES, count_center_lines, crop_center
from fastmri_ufloss.mri.coil_compression import compress_coils
from fastmri_ufloss.mri.sense import combine_sets, cut_rows, sense_adjoint

__all__ = ["MoDLDataTransform", "MoDLSample", "SliceMasking", "UnetDataTransform", "collate"]

LAYOUTS = {"singlecoil": (2, "(rows, cols)"), "multicoil": (3, "(coils, rows, cols)")}

Attrs = dict[str, Any]  # what `read_metadata` gives, and ``path``, ``scale``, ``epoch``, ``coil_compression_matrix``


class MoDLSample(NamedTuple):
    """A slice for MoDL: ``fastmri.data.transforms.VarNetSample``, field by field, then what MoDL needs more.

    K-space, target and reference have the intensities of the file; ``scale`` is what to divide them by.

    Args:
        masked_kspace: (coils, rows, cols, 2), zero where not acquired.
        mask: (1, 1, cols, 1), or (1, rows, cols, 1) of points; true where acquired.
        num_low_frequencies: fully sampled center lines; with a mask of points, the side of the center's square.
        target: root-sum-of-squares (or single-coil) image of the file, or 0.
        max_value: maximum of the target's volume.
        scale: the volume's intensity scale, see `volume_scale`.
        sens_maps: (coils, rows, cols, 2), or (sets, coils, rows, cols, 2); None if the device is to make maps.
        reference: complex coil-combined image (rows, cols) of fully sampled k-space; None where the file is
            undersampled, where no reference is wanted, and without maps.
        kspace: (coils, rows, cols, 2) fully sampled, from which the device makes the reference; None where there are
            maps, and where there is no reference.
        center: of the k-space of the whole slice, see `crop_center`, from which the device makes the maps of a band;
            None where there are maps, and of whole slices.
        first_row: of the whole slice, where the rows of this sample begin.
        num_rows: of the whole slice.
        coil_matrix_file: where the device keeps what its maps begin with, see `read_coil_matrices`; None where
            nothing is kept, and where there are maps.
    """

    masked_kspace: Tensor
    mask: Tensor
    num_low_frequencies: int
    target: Tensor
    fname: str
    slice_num: int
    max_value: float
    crop_size: tuple[int, int]
    scale: float
    sens_maps: Tensor | None
    reference: Tensor | None
    kspace: Tensor | None
    center: Tensor | None = None
    first_row: int = 0
    num_rows: int = 0
    coil_matrix_file: str | None = None


def collate(samples: Sequence[Any]) -> Any:
    """A batch of samples, as torch collates them; a field that is None in all of them stays None."""
    return torch_collate(list(samples), collate_fn_map={**default_collate_fn_map, type(None): lambda *_, **__: None})


@dataclass(eq=False)
class SliceMasking:
    """Masks the slices of ``fastmri.data.SliceDataset``, for the transforms of this package.

    With ``use_seed`` (validation, test) a mask depends on the file name alone, as in fastMRI's transforms; without
    (training) on (seed, epoch, file, slice) and not on workers, processes or the order of the slices. A mask of
    points leaves out those that the scan has left out: zero in all coils, such as the corners in many 3D scans.

    Args:
        mask_func: draws the masks. A file keeps the mask that it has or that its zeros show; None is for such files,
            and for fully sampled files.
        seed: of the training masks.
        mask_per_volume: training masks do not depend on the slice, as in a 3D scan, whose slices share the
            samples.
    """

    mask_func: MaskFunc | None = None
    _: KW_ONLY
    use_seed: bool = True
    seed: int = 0
    mask_per_volume: bool = False

    def mask_slice(
        self, kspace: ndarray, mask: ndarray | None, attrs: Attrs, fname: str, slice_num: int
    ) -> tuple[Tensor, Tensor, int, bool]:
        """Mask a slice of ``fastmri.data.SliceDataset``; ValueError for NaN, or a mask that does not fit.

        Returns:
            K-space (coils, rows, cols, 2), all that the file has; ``mask`` and ``num_low_frequencies`` of a
            `MoDLSample`; and whether the file itself is undersampled.
        """
        if not np.isfinite(kspace).all():
            raise ValueError(f"{fname}, slice {slice_num}: k-space has NaN or infinite values")
        full = to_tensor(kspace.astype(np.complex64, copy=False))
        full = full if full.ndim == 4 else full[None]
        if mask is None and attrs.get("sampling") is not None:
            mask = self._find_mask(kspace, attrs["sampling"], fname, slice_num)
        if mask is not None:
            return full, *_pad_mask(full, mask, attrs, fname), True
        return full, *self._draw_mask(full, attrs, fname, slice_num), False

    def _draw_mask(self, full: Tensor, attrs: Attrs, fname: str, slice_num: int) -> tuple[Tensor, int]:
        if self.mask_func is None:
            return torch.ones(1, 1, full.shape[-2], 1, dtype=torch.bool), full.shape[-2]
        if self.use_seed:
            seed: tuple[int, ...] = tuple(map(ord, fname))
        else:
            slices = () if self.mask_per_volume else (slice_num,)
            seed = (self.seed, attrs.get("epoch", 0), zlib.crc32(fname.encode()), *slices)
        padding = (attrs["padding_left"], attrs["padding_right"])
        _, mask, num_low = apply_mask(full[:1], self.mask_func, seed=seed, padding=padding)
        mask = mask.bool()
        if mask.shape[1] > 1:
            mask = mask & (full != 0).any(dim=-1, keepdim=True).any(dim=0, keepdim=True)
        return mask, int(num_low)

    def _find_mask(self, kspace: ndarray, sampling: str, fname: str, slice_num: int) -> ndarray:
        """The mask of a slice without one that was undersampled when it was acquired."""
        if self.mask_func is not None and not self.use_seed:
            raise ValueError(
                f"{fname} is undersampled: there are gaps of zeros in its k-space, and training needs all of it; "
                "reconstruct.py takes such a file as it is"
            )
        sampled = sampled_points(kspace)
        if not sampled.any():
            sampled = np.ones_like(sampled)
        elif (mask := find_sampling(sampled)) is None or (mask.ndim == 2 and sampling == "columns"):
            raise ValueError(f"{fname}: slice {slice_num} is sampled in another way than the others")
        return np.asarray(sampled if sampling == "points" else sampled.any(axis=0))


def _pad_mask(full: Tensor, mask: ndarray, attrs: Attrs, fname: str) -> tuple[Tensor, int]:
    rows, cols = full.shape[-3:-1]
    sampled = np.atleast_2d(mask_of_size(mask, rows, cols, where=fname)).copy()
    sampled[:, : attrs["padding_left"]] = False
    sampled[:, attrs["padding_right"] :] = False
    mask_tensor = torch.from_numpy(sampled).reshape(1, -1, cols, 1)
    return mask_tensor, int(count_center_lines(mask_tensor[None]))


def _apply(mask: Tensor, kspace: Tensor) -> Tensor:
    """The masked k-space, without the sign of zeros, as in fastMRI."""
    return kspace if bool(mask.all()) else kspace * mask + 0.0


def _check_data_range(target: ndarray | None, attrs: Attrs, fname: str) -> None:
    if target is not None and "max" not in attrs:
        raise ValueError(f"{fname} has a target image but no attribute 'max', the data range of its scores")


@dataclass(eq=False)
class MoDLDataTransform(SliceMasking):
    """Transform of fastMRI's ``SliceDataset`` that makes a `MoDLSample`.

    Args:
        mask_func, use_seed, seed, mask_per_volume: see `SliceMasking`.
        sens_maps: where maps come from. None leaves them to the device.
        coil_matrix_cache: folder of what the device's maps begin with, 218 KB for a slice of 15 coils: with it a
            slice costs a GPU the largest eigenvalue problem of its maps once only. None to keep nothing.
        keep_reference: whether the reference, or the fully sampled k-space to make it of, is handed on.
        crop_rows: samples have only the rows that are kept: those of the crop and of the target. With a mask of
            columns no row depends on another, see `cut_rows`; with a mask of points samples have all rows.
        train_rows: with training masks (not ``use_seed``) samples have a band of so many of these rows, of all where
            there are fewer, at a place that depends on (seed, epoch, file, slice), and no target. None for all rows.
        num_virtual_coils: samples have so many virtual coils, see `coil_compression_matrix`, of volumes with more
            coils; one matrix for all slices of a volume, from the center that every mask samples. None for the coils
            of the scan.
    """

    _: KW_ONLY
    sens_maps: SensMapSource | None = None
    coil_matrix_cache: str | Path | None = None
    keep_reference: bool = True
    crop_rows: bool = False
    train_rows: int | None = None
    num_virtual_coils: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(train_rows=self.train_rows, num_virtual_coils=self.num_virtual_coils)
        if self.sens_maps is not None and self.coil_matrix_cache is not None:
            raise ValueError("coil_matrix_cache is for maps that the device makes, without sens_maps")

    def __call__(
        self, kspace: ndarray, mask: ndarray | None, target: ndarray | None, attrs: Attrs, fname: str, slice_num: int
    ) -> MoDLSample:
        """The sample of a slice of ``fastmri.data.SliceDataset``; ValueError if a part does not fit."""
        _check_data_range(target, attrs, fname)
        full, mask_tensor, num_low, undersampled = self.mask_slice(kspace, mask, attrs, fname, slice_num)
        if num_low < MIN_CENTER_LINES and (self.sens_maps is None or self.sens_maps.needs_center):
            raise ValueError(
                f"{fname}: {num_low} fully sampled center lines, at least {MIN_CENTER_LINES} are needed for coil "
                f"maps; raise center_fractions or center_size (the image has {full.shape[-2]} columns), or give maps "
                "of your own (sens_maps_path)"
            )
        matrix = self._compression_matrix(len(full), attrs, fname)
        if matrix is not None:
            full = compress_coils(full, matrix)
        num_rows = full.shape[1]
        is_band = self.train_rows is not None and not self.use_seed
        rows = self._kept_rows(mask_tensor, num_rows, target, attrs)
        if is_band:
            rows = self._band(rows, mask_tensor, attrs, fname, slice_num)
        is_cut = len(rows) < num_rows
        band = cut_rows(full, rows.start, len(rows)) if is_cut else full
        maps = reference = coil_matrix_file = None
        has_reference = self.keep_reference and not undersampled
        scan = ScanSlice(full, mask_tensor, num_low, attrs.get("path", fname), slice_num, rows, matrix)
        if self.sens_maps is None:
            if self.coil_matrix_cache is not None:
                coil_matrix_file = str(SensMapCache(self.coil_matrix_cache).file_of(scan))
        else:
            maps = self.sens_maps(scan)
            if has_reference:
                reference = combine_sets(sense_adjoint(band[None], maps[None]))[0]
        return MoDLSample(
            masked_kspace=_apply(mask_tensor, band),
            mask=mask_tensor,
            num_low_frequencies=num_low,
            target=torch.tensor(0) if target is None or is_band else to_tensor(target),
            fname=fname,
            slice_num=slice_num,
            max_value=float(attrs["max"]) if target is not None else 0.0,
            crop_size=(attrs["recon_size"][0], attrs["recon_size"][1]),
            scale=float(attrs.get("scale", 1.0)),
            sens_maps=maps,
            reference=reference,
            kspace=band if has_reference and maps is None else None,
            center=crop_center(full).clone() if is_cut and maps is None else None,
            first_row=rows.start,
            num_rows=num_rows,
            coil_matrix_file=coil_matrix_file,
        )

    def _compression_matrix(self, coils: int, attrs: Attrs, fname: str) -> Tensor | None:
        if self.num_virtual_coils is None or coils <= self.num_virtual_coils:
            return None
        if "coil_compression_matrix" not in attrs:
            raise ValueError(f"{fname}: num_virtual_coils needs a matrix, which IndexedSliceDataset gives")
        return torch.from_numpy(attrs["coil_compression_matrix"][: self.num_virtual_coils])

    def _kept_rows(self, mask: Tensor, num_rows: int, target: ndarray | None, attrs: Attrs) -> range:
        """The rows of the image that are written or compared with a target."""
        if not self.crop_rows or mask.shape[1] > 1:
            return range(num_rows)
        kept = max(attrs["recon_size"][0], 0 if target is None else target.shape[0])
        kept = min(kept + (num_rows - kept) % 2, num_rows)  # the center of any smaller crop stays where it is
        return range((num_rows - kept) // 2, (num_rows + kept) // 2)

    def _band(self, rows: range, mask: Tensor, attrs: Attrs, fname: str, slice_num: int) -> range:
        """A random band of the rows of the image."""
        if mask.shape[1] > 1:
            raise ValueError(f"{fname}: train_rows is for masks of columns, and this mask is of points")
        count = min(self.train_rows or len(rows), len(rows))
        generator = np.random.default_rng((self.seed, attrs.get("epoch", 0), zlib.crc32(fname.encode()), slice_num))
        # the center of the band is anywhere: the first and the last rows are seen about as often as others
        first = int(np.clip(generator.integers(len(rows)) - count // 2, 0, len(rows) - count))
        return rows[first : first + count]


class UnetDataTransform(SliceMasking):
    """Transform of fastMRI's ``SliceDataset`` that makes a ``fastmri.data.transforms.UnetSample``.

    The k-space is masked by the rules of `SliceMasking`, as for MoDL. The rest is
    ``fastmri.data.transforms.UnetDataTransform``, in float32: the zero-filled root-sum-of-squares (or single-coil)
    magnitude, cropped to the target, less its mean, divided by its standard deviation and clamped to [-6, 6].

    Args:
        which_challenge: ``"singlecoil"`` or ``"multicoil"``; otherwise ValueError.
        mask_func, use_seed, seed, mask_per_volume: see `SliceMasking`.
    """

    def __init__(
        self,
        which_challenge: str,
        mask_func: MaskFunc | None = None,
        *,
        use_seed: bool = True,
        seed: int = 0,
        mask_per_volume: bool = False,
    ) -> None:
        super().__init__(mask_func, use_seed=use_seed, seed=seed, mask_per_volume=mask_per_volume)
        check(which_challenge in LAYOUTS, "which_challenge", "'singlecoil' or 'multicoil'", repr(which_challenge))
        self.which_challenge = which_challenge
        self._make_images = fastmri.data.transforms.UnetDataTransform(which_challenge)

    def __call__(
        self, kspace: ndarray, mask: ndarray | None, target: ndarray | None, attrs: Attrs, fname: str, slice_num: int
    ) -> UnetSample:
        """The sample of a slice of ``fastmri.data.SliceDataset``; ValueError if a part does not fit."""
        ndim, layout = LAYOUTS[self.which_challenge]
        name = f"{fname}: k-space of a {self.which_challenge} slice"
        if kspace.ndim != ndim:
            raise ValueError(f"{name} must have shape {layout}, got {kspace.shape}")
        _check_data_range(target, attrs, fname)
        full, mask_tensor, *_ = self.mask_slice(kspace, mask, attrs, fname, slice_num)
        masked_tensor = _apply(mask_tensor, full)
        masked = tensor_to_complex_np(masked_tensor if ndim == 3 else masked_tensor[0])
        target = None if target is None else target.astype(np.float32, copy=False)
        sample = self._make_images(masked, None, target, attrs, fname, slice_num)
        # a Python number would become float64 in a batch, and all that is computed with it
        return sample._replace(max_value=np.float32(sample.max_value))
