"""ESPIRiT: coil sensitivity maps from the fully sampled center of k-space."""

import math
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fastmri_ufloss.mri.center import MIN_CENTER_LINES, center_regions

__all__ = ["estimate_sens_maps"]

_FEW_LINES = 6  # below, only blocks of 2 fit, and the errors of an image are 1.5 to 3 times those of 8 lines
# of the energy in the center, left for one more set of maps: on real and simulated scans 0 to 0.18% of objects that
# fit into the field of view, and 0.12 to 3.1% of the same objects in half of it
_MAX_UNEXPLAINED = 0.002
_CPU_CHUNK_BYTES = 8 * 2**20  # on a CPU a chunk is worth keeping in cache; a GPU wants large ones
_COARSE_OVERSAMPLING = 2  # pixels per sample of G, per axis, of the coarsest grid
_EIGH_BATCH = 4096
_MAX_ANGLE = 0.02  # between a map and the eigenvector, in radians: an inner product of 0.9998


@torch.no_grad()
def estimate_sens_maps(
    masked_kspace: Tensor,
    num_low_frequencies: int | Tensor | None = None,
    *,
    mask: Tensor | None = None,
    shape: tuple[int, int] | None = None,
    calibration_size: int = 24,
    kernel_size: int = 6,
    threshold: float = 0.02,
    crop: float = 0.8,
    num_maps: int = 1,
    max_memory: int = 256 * 2**20,
    coil_matrices: MutableMapping[int, Tensor] | None = None,
) -> Tensor:
    r"""Coil sensitivity maps by ESPIRiT (Uecker et al., Magn Reson Med 71:990-1001, 2014).

    Blocks of k-space lie in the row space of the calibration matrix, spanned by its singular vectors w_k with
    s_k > threshold s_1. In image space the projection on it is a matrix G of coils x coils in each pixel, and
    the maps are its eigenvectors with eigenvalue 1:

    .. math:: G(r) = \frac{1}{|kernel|} \sum_k (F^H w_k)(r) (F^H w_k)(r)^H, \qquad G(r) s(r) = s(r)

    Float32 inside, also under autocast, and without gradients. Only the fully sampled center is read.

    Args:
        masked_kspace: (batch, coils, rows, cols, 2), centered as in fastMRI, of any scale.
        num_low_frequencies: fully sampled columns in the center, one number or (batch,); with a mask of points
            the side of the fully sampled square. None or 0: counted, see `count_center_lines`.
        mask: (batch, 1, 1 or rows, cols, 1). Without a mask the columns, or the points of a square, that are not
            zero are counted.
        shape: (rows, cols) of the maps, if ``masked_kspace`` is the center of k-space alone, see `crop_center`.
        calibration_size: largest number of rows and of columns in the calibration region.
        kernel_size: largest width of a block; in a smaller region a third of it, rounded, and at least 2. Wider
            blocks are too few for their unknowns: the maps have large errors, and parts of the object none.
        threshold: smallest singular value, relative to the largest.
        crop: maps are zero where their eigenvalue is not larger, in [0, 1). 0.8 is BART's too: larger ones lower the
            noise, but cut parts of a head in vivo.
        num_maps: sets of maps, ordered by eigenvalue.
        max_memory: bytes that the intermediate results of a chunk of rows may take, about.
        coil_matrices: samples of G (height, width, coils, coils) by the number of the slice in the batch, of an
            earlier call with the same slice, center and arguments. Those that are missing are computed and put
            there; with them the maps are the same, bit for bit.

    Returns:
        Maps (batch, coils, rows, cols, 2), for several sets (batch, num_maps, coils, rows, cols, 2), of norm 1 or 0
        over the coils; coil 0 is real and not negative. All ones for a single coil, all zero for empty k-space.

    Raises:
        ValueError: if an argument is out of range, or the sampled center is smaller than 4. Smaller than 6 is a
            warning: such maps are rough.
    """
    _check(masked_kspace, calibration_size, kernel_size, threshold, crop, num_maps)
    batch, coils, *size, _ = masked_kspace.shape
    rows, cols = size if shape is None else shape
    if coils == 1:
        maps = masked_kspace.new_zeros((batch, 1, rows, cols, 2), dtype=torch.float32)
        maps[..., 0] = masked_kspace.flatten(1).any(dim=1).view(-1, 1, 1, 1)
        return maps
    centers = center_regions(masked_kspace, num_low_frequencies, mask, calibration_size)
    smallest = min(min(center) for center in centers)
    if smallest < _FEW_LINES:
        warnings.warn(
            f"coil maps from {smallest} center lines are rough: sample at least {_FEW_LINES}, better 8 or more "
            "(num_low_frequencies and calibration_size)",
            stacklevel=3,
        )
    kept = {} if coil_matrices is None else coil_matrices
    maps = masked_kspace.new_empty((batch, num_maps, coils, rows, cols), dtype=torch.complex64)
    unexplained = maps.new_zeros((), dtype=torch.float32)
    with torch.autocast(maps.device.type, enabled=False), _one_thread(maps.device):
        for height, width in sorted(set(centers)):
            members = [i for i, center in enumerate(centers) if center == (height, width)]
            center, peaks = _calibration(masked_kspace, members, height, width)
            unexplained = unexplained + (0 * peaks).sum()  # NaN if one is not finite
            samples = _kept_coil_matrices(center, members, kept, kernel_size, threshold)
            # several images at a time only where a chunk holds them whole
            step = max(1, _chunk_rows(maps, cols, max_memory) // rows)
            for i in range(0, len(members), step):
                part = slice(i, i + step)
                fraction = _eigenvectors(samples[part], center[part], maps, members[part], crop, max_memory)
                if min(height, width) >= 3 * kernel_size:  # in smaller regions a second eigenvalue says little
                    unexplained = torch.maximum(unexplained, fraction.amax())
    left = float(unexplained)  # here alone, as a GPU must be waited for
    if math.isnan(left):
        raise ValueError("masked_kspace must be finite in its center lines, got inf or nan")
    if left > _MAX_UNEXPLAINED:
        warnings.warn(
            f"num_maps={num_maps} leaves {100 * left:.1f}% of the center of k-space unexplained, which "
            f"num_maps={num_maps + 1} explains: the field of view may be smaller than the object",
            stacklevel=3,
        )
    return torch.view_as_real(maps[:, 0] if num_maps == 1 else maps)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Short operations by the thousand gain little from more threads, and wait for them on shared cores."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(
    masked_kspace: Tensor, calibration_size: int, kernel_size: int, threshold: float, crop: float, num_maps: int
) -> None:
    shape = tuple(masked_kspace.shape)
    if masked_kspace.ndim != 5 or shape[-1] != 2 or shape[2] < MIN_CENTER_LINES:
        layout = f"(batch, coils, rows, cols, 2), at least {MIN_CENTER_LINES} rows"
        raise ValueError(f"masked_kspace must have shape {layout}, got {shape}")
    if calibration_size < MIN_CENTER_LINES:
        raise ValueError(f"calibration_size must be at least {MIN_CENTER_LINES}, got {calibration_size}")
    if kernel_size < 2:
        raise ValueError(f"kernel_size must be at least 2, got {kernel_size}")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    if not 0 <= crop < 1:
        raise ValueError(f"crop must be in [0, 1), got {crop}")
    if not 1 <= num_maps <= shape[1]:
        raise ValueError(f"num_maps must be from 1 to the number of coils ({shape[1]}), got {num_maps}")


def _calibration(masked_kspace: Tensor, members: list[int], height: int, width: int) -> tuple[Tensor, Tensor]:
    """The center (members, coils, height, width) of k-space, complex, with 1 as its largest magnitude, and that.

    A center that is not finite becomes zero.
    """
    rows, cols = masked_kspace.shape[2:4]
    center = masked_kspace.narrow(2, (rows - height + 1) // 2, height)
    center = center.narrow(3, (cols - width + 1) // 2, width)
    center = (center if len(members) == len(center) else center[members]).float()
    peaks = center.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
    center = torch.where(peaks.isfinite(), center / torch.where(peaks > 0, peaks, 1), 0)
    return torch.view_as_complex(center.contiguous()), peaks


def _kernel(kernel_size: int, region: Sequence[int]) -> list[int]:
    """The width of a block along each axis."""
    return [min(kernel_size, max(2, (size + 1) // 3)) for size in region]


def _kept_coil_matrices(
    calibration: Tensor, members: list[int], kept: MutableMapping[int, Tensor], kernel_size: int, threshold: float
) -> Tensor:
    """`_coil_matrices` of some members of a batch, of which only those that are not kept are computed."""
    coils = calibration.shape[1]
    shape = (*(2 * k - 1 for k in _kernel(kernel_size, calibration.shape[2:])), coils, coils)
    for member, center in zip(members, calibration.split(1), strict=True):
        if member not in kept or kept[member].shape != shape:
            # each by itself: what is kept does not depend on the rest of the batch, not even by rounding
            kept[member] = _coil_matrices(center, kernel_size, threshold)[0]
    return torch.stack([kept[member] for member in members])


def _coil_matrices(calibration: Tensor, kernel_size: int, threshold: float) -> Tensor:
    """2 kernel - 1 samples per axis of G, a trigonometric polynomial of degree kernel - 1.

    (batch, height, width, coils, coils); sample n of height is at n / height of the field of view from the center.
    """
    batch, coils = calibration.shape[:2]
    kernel = _kernel(kernel_size, calibration.shape[2:])
    blocks = calibration.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1)
    matrix = blocks.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # (batch, blocks, coils * kernel area)
    # singular vectors from the smaller Gram matrix; the threshold is far above the accuracy lost by squaring
    if matrix.shape[1] < matrix.shape[2]:
        squared, vectors = torch.linalg.eigh(matrix @ matrix.mH)
        vectors = vectors.mH @ matrix
        scale = squared.clamp(min=torch.finfo(squared.dtype).tiny).rsqrt()
    else:
        squared, vectors = torch.linalg.eigh(matrix.mH @ matrix)
        vectors = vectors.mH
        scale = torch.ones_like(squared)
    kept = squared > threshold**2 * squared[:, -1:]
    vectors = torch.where(kept, scale, 0).unsqueeze(-1) * vectors
    grid = [2 * k - 1 for k in kernel]
    images = torch.fft.ifft2(vectors.reshape(batch, -1, coils, *kernel), s=grid, norm="forward")
    images = images.permute(0, 3, 4, 2, 1)
    return images @ images.mH / (kernel[0] * kernel[1])


def _positions(size: int, stride: int, device: torch.device) -> Tensor:
    """Every stride-th pixel, as a fraction of the field of view from the center."""
    return (torch.arange(0, size - 1 + stride, stride, device=device) - size // 2) / size


def _interpolation(size: int, stride: int, samples: int, device: torch.device) -> Tensor:
    """Matrix (pixels, samples) from samples of a trigonometric polynomial to every stride-th pixel."""
    distance = _positions(size, stride, device)[:, None] - torch.arange(samples, device=device) / samples
    degrees = torch.arange(1, samples // 2 + 1, device=device)
    return (1 + 2 * torch.cos(2 * torch.pi * degrees * distance[..., None]).sum(dim=-1)) / samples


def _interpolate(samples: Tensor, to_rows: Tensor, to_cols: Tensor) -> Tensor:
    """G at a grid of pixels, (batch, rows, cols, coils, coils), from its samples."""
    batch, height, width, coils, _ = samples.shape
    # the interpolation is real, so it takes real and imaginary parts for columns of a real matrix
    values = torch.view_as_real(samples.contiguous()).reshape(batch, height, -1)
    values = to_cols @ (to_rows @ values).view(batch, len(to_rows), width, -1)
    return torch.view_as_complex(values.view(batch, len(to_rows), len(to_cols), coils, coils, 2))


def _strides(shape: Sequence[int], samples: Sequence[int]) -> list[tuple[int, ...]]:
    """The strides per axis, from the coarsest grid to that of all pixels."""
    coarsest = []
    for size, num_samples in zip(shape, samples, strict=True):
        ratio = size // (_COARSE_OVERSAMPLING * num_samples)
        coarsest.append(2 ** max(0, ratio.bit_length() - 1))
    return [tuple(max(1, s >> level) for s in coarsest) for level in range(max(coarsest).bit_length())]


def _chunk_rows(maps: Tensor, cols: int, max_memory: int) -> int:
    """Rows of a grid for which the coil matrices, the eigenvectors and their temporaries fit."""
    num_maps, coils = maps.shape[1:3]
    limit = min(max_memory, _CPU_CHUNK_BYTES) if maps.device.type == "cpu" else max_memory
    return max(1, limit // (8 * cols * coils * (coils + 8 * num_maps)))


def _eigenvectors(
    samples: Tensor, calibration: Tensor, maps: Tensor, members: list[int], crop: float, max_memory: int
) -> Tensor:
    """Writes the maps (batch, num_maps, coils, rows, cols) of some members of a batch from the samples of G.

    Returns, for each member, the part of the energy of the calibration that another set of maps would explain.

    G(r) varies slowly, and so do its eigenvectors: they are computed exactly on a coarse grid only. Those of
    each finer grid start between two known pixels, where one product with G leaves next to no error.
    """
    num_maps, coils, *shape = maps.shape[1:]
    coarse, coarse_strides = maps.new_empty(0), tuple(shape)
    unexplained, energy = maps.new_zeros((2, len(members)), dtype=torch.float32)
    for strides in _strides(shape, samples.shape[1:3]):
        to_rows, to_cols = (
            _interpolation(size, stride, num, maps.device)
            for size, stride, num in zip(shape, strides, samples.shape[1:3], strict=True)
        )
        step = max(1, _chunk_rows(maps, len(to_cols), max_memory) // len(members))
        last = max(strides) == 1
        grid_shape = (len(members), len(to_rows), len(to_cols), coils, num_maps)
        grid = coarse if last else maps.new_empty(grid_shape)
        for start in range(0, len(to_rows), step):
            stop = min(start + step, len(to_rows))
            matrix = _interpolate(samples, to_rows[start:stop], to_cols)
            if coarse.numel() == 0:
                values, vectors = _exact(matrix, num_maps + 1)
                images = _images(calibration, shape, strides, start, stop)
                rest = images - _project(vectors[..., :num_maps], images)
                is_left = (values[..., num_maps:] > crop).any(dim=-1)
                energy += (images.abs().square().sum(dim=(-2, -1)) * (values[..., 0] > crop)).sum(dim=(1, 2))
                unexplained += (rest.abs().square().sum(dim=(-2, -1)) * is_left).sum(dim=(1, 2))
                values, vectors = values[..., :num_maps], vectors[..., :num_maps]
            else:
                halved = [new < old for new, old in zip(strides, coarse_strides, strict=True)]
                values, vectors = _iterate(matrix, _between(coarse, start, stop, len(to_cols), halved), crop)
            if last:
                vectors = _crop_and_remove_phase(vectors, values, crop)
                for member, pixels in zip(members, vectors, strict=True):
                    maps[member, :, :, start:stop] = pixels.permute(3, 2, 0, 1)
            else:
                grid[:, start:stop] = vectors
        coarse, coarse_strides = grid, strides
    return unexplained / torch.where(energy > 0, energy, 1)


def _images(calibration: Tensor, shape: Sequence[int], strides: Sequence[int], start: int, stop: int) -> Tensor:
    """Coil images of the calibration in some rows of a grid of pixels, (batch, rows, cols, coils, 1)."""
    to_rows, to_cols = (
        torch.exp(2j * torch.pi * _positions(size, stride, calibration.device)[:, None] * frequencies)
        for size, stride, frequencies in zip(
            shape, strides, (torch.arange(n, device=calibration.device) for n in calibration.shape[2:]), strict=True
        )
    )
    return (to_rows[start:stop] @ calibration @ to_cols.mT).permute(0, 2, 3, 1).unsqueeze(-1)


def _exact(matrix: Tensor, num_maps: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (..., num_maps) and their eigenvectors (..., coils, num_maps)."""
    values, vectors = _eigh(matrix)
    return values[..., -num_maps:].flip(-1), vectors[..., -num_maps:].flip(-1)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.linalg.eigh`` in parts: cuSOLVER refuses more than some 32,768 matrices at once."""
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    parts = [torch.linalg.eigh(part) for part in flat.split(_EIGH_BATCH) if len(part)]
    if not parts:
        return matrix.new_empty(matrix.shape[:-1], dtype=matrix.real.dtype), matrix.clone()
    values, vectors = (torch.cat(each) for each in zip(*parts, strict=True))
    return values.reshape(matrix.shape[:-1]), vectors.reshape(matrix.shape)


def _project(basis: Tensor, vectors: Tensor) -> Tensor:
    """B B^H x for each pixel; a sum, as a product of matrices this small is slower."""
    parts = [b * (b.conj() * vectors).sum(dim=-2, keepdim=True) for b in basis.split(1, dim=-1)]
    return sum(parts[1:], parts[0])


def _norm(vectors: Tensor, dim: tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(torch.view_as_real(vectors), dim=(*(d - 1 for d in dim), -1))


def _orthonormalize(vectors: Tensor) -> Tensor:
    """Gram-Schmidt over the last axis; zero stays zero."""
    done: list[Tensor] = []
    for v in vectors.split(1, dim=-1):
        if done:
            v = v - _project(torch.cat(done, dim=-1), v)
        done.append(v / _norm(v, dim=(-2,)).clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-2))
    return torch.cat(done, dim=-1) if len(done) > 1 else done[0]


def _insert_midpoints(vectors: Tensor, dim: int) -> Tensor:
    """n points along dim to 2 n - 1. The neighbor is projected, as its phase (or basis) is arbitrary."""
    count = vectors.shape[dim] - 1
    left, right = vectors.narrow(dim, 0, count), vectors.narrow(dim, 1, count)
    middle = _orthonormalize(left + _project(right, left))
    pairs = torch.stack((left, middle), dim=dim + 1).flatten(dim, dim + 1)
    return torch.cat((pairs, vectors.narrow(dim, count, 1)), dim=dim)


def _between(coarse: Tensor, start: int, stop: int, cols: int, halved: Sequence[bool]) -> Tensor:
    """Rows start to stop of the finer grid, whose stride is halved along rows, columns or both."""
    if halved[0]:
        first = start // 2
        vectors = _insert_midpoints(coarse[:, first : stop // 2 + 1], dim=1)
        vectors = vectors.narrow(1, start - 2 * first, stop - start)
    else:
        vectors = coarse[:, start:stop]
    return _insert_midpoints(vectors, dim=2)[:, :, :cols] if halved[1] else vectors


def _iterate(matrix: Tensor, vectors: Tensor, crop: float) -> tuple[Tensor, Tensor]:
    """One orthogonal iteration with Rayleigh-Ritz; pixels not known to have converged are made exact."""
    products = matrix @ vectors
    if vectors.shape[-1] == 1:
        values = (vectors.conj() * products).sum(dim=-2).real
    else:
        values, rotation = _eigh(vectors.mH @ products)
        values, rotation = values.flip(-1), rotation.flip(-1)
        vectors, products = vectors @ rotation, products @ rotation
    error = _norm(products - vectors * values.unsqueeze(-2), dim=(-2,))
    vectors = _orthonormalize(products)
    # The squared eigenvalues sum up to |G|^2, which bounds the largest one that is left. The angle was at
    # most error / (value - left), and the step has made it smaller by left / value.
    squares = _norm(matrix, dim=(-2, -1)).square().unsqueeze(-1) - values.square().sum(dim=-1, keepdim=True)
    left = squares.clamp(min=0).sqrt()
    behind = error * left > _MAX_ANGLE * values * (values - left)
    # an eigenvalue is within the error of its estimate: pixels that will be cropped may stay as they are
    chosen = (behind & (values + error > crop)).any(dim=-1).nonzero(as_tuple=True)
    values[chosen], vectors[chosen] = _exact(matrix[chosen], vectors.shape[-1])
    return values, vectors


def _crop_and_remove_phase(vectors: Tensor, values: Tensor, crop: float) -> Tensor:
    """Zero where the eigenvalue is not above crop, coil 0 real and not negative elsewhere."""
    first = vectors[..., :1, :]
    phase = torch.where(first == 0, 1, first.sgn().conj())
    return vectors * torch.where(values.unsqueeze(-2) > crop, phase, 0)
