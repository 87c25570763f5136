"""Slices reconstructed side by side, by one thread each: an image does not depend on the number of processes."""

import contextlib
import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS
from fastmri_ufloss.data.reconstruction_writer import crop_like_fastmri
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.workers import run_in_processes

__all__ = ["image_of", "reference_of", "run_slices"]

Function = Callable[[MoDLSample, Any], Any]


def run_slices(
    function: Function,
    dataset: IndexedSliceDataset,
    tasks: Sequence[tuple[int, Any]],
    *,
    num_workers: int,
    title: str,
) -> Generator[tuple[int, Any, Any], None, None]:
    """Call a function for some slices of a data set, with a progress bar.

    Args:
        function: from the sample of a slice and an argument to a result, both plain values or NumPy arrays. Processes
            must be able to import the function.
        dataset: whose transform makes the samples.
        tasks: index of a slice in the data set, and the argument.
        num_workers: number of processes; 0 for this one.
        title: of the progress bar.

    Yields:
        Index, argument and result, in the order in which they end.

    Raises:
        ChildProcessError: if a process died.
    """
    jobs = [(function, _only(dataset, index), index, argument) for index, argument in tasks]
    results: Any = ((job, _run(job)) for job in jobs)
    if num_workers > 0 and jobs:
        results = run_in_processes(_run, jobs, num_workers=min(num_workers, len(jobs)))
    with contextlib.closing(results), tqdm(total=len(jobs), desc=title, unit="slice", disable=not jobs) as bar:
        for (_, _, index, argument), result in results:
            if isinstance(result, str):
                raise ChildProcessError(result)
            bar.update()
            yield index, argument, result


def _only(dataset: IndexedSliceDataset, index: int) -> IndexedSliceDataset:
    """A data set of a single slice, to be sent to a process."""
    single = copy.copy(dataset)
    single.raw_samples = [dataset.raw_samples[index]]
    return single


def _run(job: tuple[Function, IndexedSliceDataset, int, Any]) -> Any:
    function, dataset, _, argument = job
    with _single_thread():
        return function(dataset[0], argument)


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Torch and what NumPy and scikit-learn call use one thread meanwhile: sums do not depend on their number."""
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        threadpool_limits = contextlib.nullcontext
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def image_of(sample: MoDLSample, name: str, weight: float | None) -> np.ndarray:
    """Magnitude (rows, cols) by a method of `CLASSICAL_METHODS`, cropped as fastMRI crops for its leaderboard.

    Raises:
        ValueError: if the sample has no coil maps.
    """
    if sample.sens_maps is None:
        raise ValueError(f"samples must have coil maps, got None for {sample.fname}")
    inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
    return _magnitude(sample, CLASSICAL_METHODS[name](*inputs, weight)[0])


def reference_of(sample: MoDLSample) -> np.ndarray | None:
    """The coil-combined magnitude of a fully sampled slice, cropped as well; None where k-space is undersampled."""
    return None if sample.reference is None else _magnitude(sample, sample.reference)


def _magnitude(sample: MoDLSample, image: Tensor) -> np.ndarray:
    return crop_like_fastmri(image[None, None], sample.crop_size)[0].numpy().copy()
