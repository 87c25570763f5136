"""fastMRI's SliceDataset on the safe index, with an epoch for the masks."""

import random
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fastmri.data import SliceDataset
from fastmri.data.mri_data import FastMRIRawDataSample

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.index import MetadataIndex, list_volumes, num_coils
from fastmri_ufloss.files import name_some

__all__ = ["IndexedSliceDataset", "scale_center"]

MAX_CENTER_LINES = 24
MIN_RETAINED_ENERGY = 0.95

MaskCenter = Callable[[int, int], tuple[int, int]]  # from the size (rows, cols), the center that every mask samples


def scale_center(metadata: dict[str, Any], mask_center: MaskCenter | None) -> tuple[int, int]:
    """Center (rows, cols) of k-space for a volume's scale and virtual coils: at most 24 columns, all acquired.

    The center has all rows or, where the mask is one of points, as many as columns; ``mask_center`` is None
    without masks.
    """
    rows, cols = metadata["kspace_shape"][-2:]
    if metadata["mask_center"] is not None:
        height, width = metadata["mask_center"]
    else:
        height, width = (rows, cols) if mask_center is None else mask_center(rows, cols)
    width = max(1, min(width, MAX_CENTER_LINES, cols))
    return (rows if height >= rows else width), width


class IndexedSliceDataset(SliceDataset):
    """fastMRI's ``SliceDataset`` with metadata from a `MetadataIndex`, and ``path`` and the intensity ``scale``.

    An index of the data set is a slice's number, or (epoch, number): the transform finds the epoch as
    ``attrs["epoch"]``, 0 where there is none. For a transform with ``num_virtual_coils`` the volumes that have more
    coils have ``coil_compression_matrix``, one for all slices; ``retained_energy`` is, by the name of each such file,
    the fraction of energy that the virtual coils keep, and less than 95% is a warning.

    Args:
        root, challenge, transform, sample_rate, volume_sample_rate, raw_sample_filter: see fastMRI's data set.
        mask_center: see `scale_center`.
        seed: of the sub-sampling that the two rates ask for.
        skip_empty: leave out slices without signal, with a warning; a test keeps its volumes whole.
        names: of the files to take; None for all.

    Raises:
        FileNotFoundError, ValueError: if there is no volume, or a volume cannot be used, or no slice is left.
    """

    def __init__(
        self,
        root: str | Path,
        challenge: str,
        *,
        index: MetadataIndex,
        mask_center: MaskCenter | None = None,
        transform: Callable[..., Any] | None = None,
        sample_rate: float | None = None,
        volume_sample_rate: float | None = None,
        raw_sample_filter: Callable[[FastMRIRawDataSample], bool] | None = None,
        seed: int = 0,
        skip_empty: bool = True,
        names: Collection[str] | None = None,
    ) -> None:
        self._transform = transform
        self._num_virtual_coils: int | None = getattr(transform, "num_virtual_coils", None)
        self.retained_energy: dict[str, float] = {}
        self._few_coils: list[str] = []
        self._skip_empty = skip_empty
        self._index = index
        self._mask_center = mask_center
        self._volumes = set(list_volumes(root, names))
        self._empty: dict[Path, list[int]] = {}
        for name, rate in (("sample_rate", sample_rate), ("volume_sample_rate", volume_sample_rate)):
            check(rate is None or 0 < rate <= 1, name, "above 0 and at most 1", rate)

        def keep(sample: FastMRIRawDataSample) -> bool:
            if sample.slice_ind in self._empty[sample.fname]:
                return False
            return raw_sample_filter is None or raw_sample_filter(sample)

        # fastMRI sub-samples with the global generator
        state = random.getstate()
        random.seed(seed)
        try:
            super().__init__(
                root,
                challenge,
                transform=None,  # called here, with the epoch
                sample_rate=sample_rate,
                volume_sample_rate=volume_sample_rate,
                raw_sample_filter=keep,
            )
        finally:
            random.setstate(state)
            self.raw_sample_filter = None  # a local function, which worker processes could not be sent
        # fastMRI shuffles what it sub-samples; a test needs each volume's slices together and in their order
        self.raw_samples.sort(key=lambda sample: (sample.fname, sample.slice_ind))
        for path, slices in self._empty.items():
            if slices:
                warnings.warn(f"{path}: skipped slices {slices}, which have no signal", stacklevel=2)
        self._warn_of_coils(root)
        if not self.raw_samples:
            raise ValueError(
                f"no slice of {root} is left after sub-sampling: raise sample_rate or volume_sample_rate"
            )

    def _retrieve_metadata(self, fname: Path) -> tuple[dict[str, Any], int]:
        if fname not in self._volumes:
            return {}, 0
        metadata = self._index.metadata(fname)
        center = scale_center(metadata, self._mask_center)
        metadata["path"] = str(fname)
        metadata["scale"] = self._index.scale(fname, center)
        self._empty[fname] = self._index.empty_slices(fname, center) if self._skip_empty else []
        coils = num_coils(metadata)
        count = self._num_virtual_coils or coils
        if coils > count:
            matrix, energies = self._index.coil_compression(fname, center)
            metadata["coil_compression_matrix"] = matrix[:count]
            self.retained_energy[fname.name] = float(energies[:count].sum())
        elif coils < count:
            self._few_coils.append(fname.name)
        return metadata, metadata["kspace_shape"][0]

    def _warn_of_coils(self, root: str | Path) -> None:
        low = {name: energy for name, energy in self.retained_energy.items() if energy < MIN_RETAINED_ENERGY}
        name = f"num_virtual_coils={self._num_virtual_coils}"
        if low:
            values = name_some([f"{fname} ({energy:.3f})" for fname, energy in sorted(low.items())])
            message = f"{name} keeps less than {MIN_RETAINED_ENERGY:.0%} of the energy of {values}: take more"
            warnings.warn(f"{root}: {message}", stacklevel=3)
        if self._few_coils:
            names = name_some(sorted(self._few_coils))
            warnings.warn(f"{root}: fewer coils than {name}, left as they are: {names}", stacklevel=3)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        kspace, mask, target, attrs, fname, slice_num = super().__getitem__(index)
        if self._transform is None:
            return kspace, mask, target, attrs, fname, slice_num
        return self._transform(kspace, mask, target, {**attrs, "epoch": epoch}, fname, slice_num)

    @property
    def batch_keys(self) -> list[tuple[Any, ...]]:
        """What the samples of a batch must have in common: the sizes of all they hold, and what they lack."""
        keys: list[tuple[Any, ...]] = []
        for sample in self.raw_samples:
            facts = sample.metadata
            sizes = (facts["recon_size"], facts["target_shape"] or ())
            shape = facts["kspace_shape"][1:]
            if "coil_compression_matrix" in facts:
                shape = [len(facts["coil_compression_matrix"]), *shape[1:]]
            keys.append((*shape, *map(tuple, sizes), facts["sampling"]))
        return keys
