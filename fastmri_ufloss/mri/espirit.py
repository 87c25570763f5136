"""ESPIRiT: coil sensitivity maps from the fully sampled centre of k-space."""

import torch
from torch import Tensor

__all__ = ["count_center_lines", "estimate_sens_maps"]

# Below this the maps cannot be told from the object: the smallest kernel is 2 wide and needs blocks to learn from.
_MIN_LINES = 4

# On a CPU the coil matrices of a chunk are worth keeping in cache; a GPU wants them as many as memory allows.
_CPU_CHUNK_BYTES = 4 * 2**20

# Pixels per sample of the coil matrices, per axis, on the coarsest grid, where eigenvectors are exact.
_COARSE_OVERSAMPLING = 2

# |G x - lambda x| above which a pixel's eigenvectors are computed exactly, see `_polish`.
_MAX_RESIDUAL = 1e-2


def count_center_lines(mask: Tensor) -> Tensor:
    """Number of contiguous sampled columns around the centre of k-space, counted symmetrically.

    It is the number n for which fastMRI's centre [pad, pad + n), pad = (cols - n + 1) // 2, is sampled, the same
    as ``fastmri.models.varnet.SensitivityModel`` counts for fastMRI's masks, and right for full ones as well.

    Args:
        mask: (batch, 1, 1 or rows, cols, 1); a column counts if all of its rows are sampled.

    Returns:
        (batch,) int64: even, or 1 if the centre is alone, or 0 if it is missing, or cols if all are sampled.

    Raises:
        ValueError: if the mask is not five-dimensional.
    """
    if mask.ndim != 5 or mask.shape[1] != 1 or mask.shape[-1] != 1:
        raise ValueError(f"mask must have shape (batch, 1, 1 or rows, cols, 1), got {tuple(mask.shape)}")
    return _count_symmetric((mask[:, 0, ..., 0] != 0).all(dim=1))


def _count_symmetric(sampled: Tensor) -> Tensor:
    cols = sampled.shape[1]
    center = cols // 2
    left = sampled[:, :center].flip(1).cumprod(dim=1).sum(dim=1)
    right = sampled[:, center:].cumprod(dim=1).sum(dim=1)
    # for an odd number of columns fastMRI's centre reaches one further to the right than to the left
    count = 2 * torch.minimum(left, right - cols % 2)
    count = torch.where((count <= 0) & (right > 0), 1, count.clamp(min=0))
    return torch.where(sampled.all(dim=1), cols, count)


@torch.no_grad()
def estimate_sens_maps(
    masked_kspace: Tensor,
    num_low_frequencies: int | Tensor | None = None,
    *,
    calibration_size: int = 24,
    kernel_size: int = 6,
    threshold: float = 0.02,
    crop: float = 0.8,
    num_maps: int = 1,
    max_memory: int = 256 * 2**20,
) -> Tensor:
    r"""Coil sensitivity maps by ESPIRiT (Uecker et al., Magn Reson Med 71:990-1001, 2014).

    Blocks of k-space lie in the row space of the calibration matrix A, spanned by its singular vectors w_k with
    s_k > threshold s_1. In image space the projection on it is one small matrix a pixel, of which the maps are the
    eigenvectors with eigenvalue 1:

    .. math:: G(r) = \frac{1}{|kernel|} \sum_k (F^H w_k)(r) (F^H w_k)(r)^H, \qquad G(r) s(r) = s(r)

    Float32 inside, also under autocast, and without gradients. Only the centre lines are read.

    Args:
        masked_kspace: (batch, coils, rows, cols, 2), centred as in fastMRI, of any scale.
        num_low_frequencies: fully sampled columns in the centre, one number or (batch,). None or 0: counted from
            the columns that are not zero.
        calibration_size: most rows and columns of the calibration region.
        kernel_size: largest width of a block; half of a calibration region that is smaller than two blocks.
        threshold: smallest singular value, relative to the largest.
        crop: maps are zero where their eigenvalue is not larger, in [0, 1).
        num_maps: sets of maps, ordered by eigenvalue.
        max_memory: bytes that the intermediate results of one chunk of rows may take, about.

    Returns:
        Maps (batch, coils, rows, cols, 2), for several sets (batch, num_maps, coils, rows, cols, 2), of unit norm
        over the coils or zero, with coil 0 real and not negative. All ones for a single coil, zero for empty
        k-space.

    Raises:
        ValueError: if an argument is out of range, or there are fewer than 4 centre lines.
    """
    _check(masked_kspace, calibration_size, kernel_size, threshold, crop, num_maps)
    batch, coils, rows, cols, _ = masked_kspace.shape
    if coils == 1:
        not_empty = masked_kspace.flatten(1).any(dim=1).view(-1, 1, 1, 1).float()
        ones = not_empty.expand(batch, 1, rows, cols)
        return torch.stack((ones, torch.zeros_like(ones)), dim=-1)
    lines = [min(n, calibration_size) for n in _center_lines(masked_kspace, num_low_frequencies)]
    maps = masked_kspace.new_empty((batch, num_maps, coils, rows, cols), dtype=torch.complex64)
    with torch.autocast(masked_kspace.device.type, enabled=False):
        for width in sorted(set(lines)):
            members = [i for i, n in enumerate(lines) if n == width]
            chosen = masked_kspace if len(members) == batch else masked_kspace[members]
            samples = _coil_matrices(_calibration(chosen, calibration_size, width), kernel_size, threshold)
            # one sample at a time where a chunk holds no more than that anyhow
            step = max(1, _chunk_rows(samples, cols, num_maps, max_memory) // rows)
            for i in range(0, len(members), step):
                part = _eigenvectors(samples[i : i + step], (rows, cols), num_maps, crop, max_memory)
                if len(part) == batch:
                    maps = part
                else:
                    maps[members[i : i + step]] = part
    return torch.view_as_real(maps[:, 0] if num_maps == 1 else maps)


def _check(
    masked_kspace: Tensor,
    calibration_size: int,
    kernel_size: int,
    threshold: float,
    crop: float,
    num_maps: int,
) -> None:
    shape = tuple(masked_kspace.shape)
    if masked_kspace.ndim != 5 or shape[-1] != 2:
        raise ValueError(f"masked_kspace must have shape (batch, coils, rows, cols, 2), got {shape}")
    if shape[2] < _MIN_LINES:
        raise ValueError(f"masked_kspace must have at least {_MIN_LINES} rows, got shape {shape}")
    if calibration_size < _MIN_LINES:
        raise ValueError(f"calibration_size must be at least {_MIN_LINES}, got {calibration_size}")
    if kernel_size < 2:
        raise ValueError(f"kernel_size must be at least 2, got {kernel_size}")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    if not 0 <= crop < 1:
        raise ValueError(f"crop must be in [0, 1), got {crop}")
    if not 1 <= num_maps <= shape[1]:
        raise ValueError(f"num_maps must be from 1 to the number of coils ({shape[1]}), got {num_maps}")


def _center_lines(masked_kspace: Tensor, num_low_frequencies: int | Tensor | None) -> list[int]:
    """The number of centre lines of each sample, given or counted; an empty sample has all of them."""
    batch, _, rows, cols, _ = masked_kspace.shape
    given = torch.as_tensor(0 if num_low_frequencies is None else num_low_frequencies)
    if given.numel() not in (1, batch):
        raise ValueError(
            f"num_low_frequencies must be one number or have shape ({batch},), got {tuple(given.shape)}"
        )
    lines = [int(n) for n in given.flatten().expand(batch).tolist()]
    if 0 in lines:
        # the rows of the calibration region only: the outer ones may be zero, or undersampled in two directions
        size = min(rows, 24)
        middle = masked_kspace[:, :, (rows - size + 1) // 2 :][:, :, :size]
        counted = _count_symmetric((middle != 0).any(dim=-1).any(dim=1).all(dim=1))
        counted = torch.where(masked_kspace.flatten(1).any(dim=1), counted, cols).tolist()
        lines = [n or c for n, c in zip(lines, counted, strict=True)]
    if min(lines) < _MIN_LINES or max(lines) > cols:
        raise ValueError(
            f"num_low_frequencies must be from {_MIN_LINES} to the number of columns ({cols}), got {lines}"
        )
    return lines


def _calibration(masked_kspace: Tensor, height: int, width: int) -> Tensor:
    """The centre (batch, coils, height, width) of k-space, complex, with 1 as its largest magnitude."""
    rows, cols = masked_kspace.shape[2:4]
    height = min(height, rows)
    top, left = (rows - height + 1) // 2, (cols - width + 1) // 2
    center = masked_kspace[:, :, top : top + height, left : left + width].float().contiguous()
    scale = center.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
    if not torch.isfinite(scale).all():
        raise ValueError("masked_kspace must be finite in its centre lines, got inf or nan")
    return torch.view_as_complex(center / torch.where(scale > 0, scale, 1))


def _coil_matrices(calibration: Tensor, kernel_size: int, threshold: float) -> Tensor:
    """G on the smallest grid that determines it.

    G(r) is a trigonometric polynomial of degree kernel - 1, so 2 kernel - 1 samples per axis hold all of it.

    Args:
        calibration: (batch, coils, height, width) complex.

    Returns:
        (batch, 2 height_k - 1, 2 width_k - 1, coils, coils) complex, at r = n / (2 kernel - 1) of the field of
        view from the image's centre.
    """
    batch, coils = calibration.shape[:2]
    kernel = [min(kernel_size, size // 2) for size in calibration.shape[2:]]
    blocks = calibration.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1)
    matrix = blocks.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # (batch, blocks, coils * kernel area)
    # singular vectors from the smaller Gram matrix; the threshold is far above the accuracy lost by squaring
    if matrix.shape[1] < matrix.shape[2]:
        squared, vectors = torch.linalg.eigh(matrix @ matrix.mH)
        vectors = vectors.mH @ matrix
        norm = squared.clamp(min=torch.finfo(squared.dtype).tiny).rsqrt()
    else:
        squared, vectors = torch.linalg.eigh(matrix.mH @ matrix)
        vectors = vectors.mH
        norm = torch.ones_like(squared)
    kept = squared > threshold**2 * squared[:, -1:]
    vectors = torch.where(kept, norm, 0).unsqueeze(-1) * vectors
    vectors = vectors.reshape(batch, -1, coils, *kernel)
    grid = [2 * k - 1 for k in kernel]
    images = torch.fft.ifft2(vectors, s=grid, norm="forward").permute(0, 3, 4, 2, 1)
    return images @ images.mH / (kernel[0] * kernel[1])


def _interpolation(pixels: Tensor, size: int, num_samples: int) -> Tensor:
    """Matrix (pixels, num_samples) from equidistant samples of a trigonometric polynomial to pixels of an axis."""
    position = (pixels - size // 2) / size
    samples = torch.arange(num_samples, device=pixels.device) / num_samples
    degrees = torch.arange(1, num_samples // 2 + 1, device=pixels.device)
    angle = 2 * torch.pi * degrees * (position[:, None] - samples)[..., None]
    return (1 + 2 * torch.cos(angle).sum(dim=-1)) / num_samples


def _interpolate(samples: Tensor, to_rows: Tensor, to_cols: Tensor) -> Tensor:
    """G at a grid of pixels, (batch, rows, cols, coils, coils), from its samples."""
    batch, height, width, coils, _ = samples.shape
    # both matrices are real, so real products on (real, imaginary) pairs do
    values = torch.view_as_real(samples.contiguous())
    values = (to_rows @ values.reshape(batch, height, -1)).view(batch, len(to_rows), width, -1)
    values = to_cols @ values
    return torch.view_as_complex(values.view(batch, len(to_rows), len(to_cols), coils, coils, 2))


def _chunk_rows(samples: Tensor, cols: int, num_maps: int, max_memory: int) -> int:
    """Rows of an image whose coil matrices and eigenvectors, with temporaries, fit."""
    coils = samples.shape[-1]
    limit = max_memory if samples.device.type != "cpu" else min(max_memory, _CPU_CHUNK_BYTES)
    return max(1, limit // (8 * cols * coils * (coils + 8 * num_maps)))


def _strides(shape: tuple[int, int], samples: Tensor) -> list[tuple[int, int]]:
    """Powers of two per axis, from the coarsest grid to (1, 1)."""
    strides = []
    for size, num_samples in zip(shape, samples.shape[1:3], strict=True):
        stride = 1
        while size >= 2 * stride * _COARSE_OVERSAMPLING * num_samples:
            stride *= 2
        strides.append(stride)
    levels = [(strides[0], strides[1])]
    while max(levels[-1]) > 1:
        levels.append((max(levels[-1][0] // 2, 1), max(levels[-1][1] // 2, 1)))
    # an axis that starts finer than the other waits for it
    return levels


def _eigenvectors(
    samples: Tensor, shape: tuple[int, int], num_maps: int, crop: float, max_memory: int
) -> Tensor:
    """Maps (batch, num_maps, coils, rows, cols) from the samples of G.

    G(r) varies slowly, and so do its eigenvectors: they are computed exactly on a coarse grid only. Each finer
    one starts between two known pixels, where one product with its own G leaves next to no error.
    """
    batch, coils = samples.shape[0], samples.shape[-1]
    coarse: Tensor | None = None
    previous = (0, 0)
    for strides in _strides(shape, samples):
        matrices = [
            _interpolation(torch.arange(0, size - 1 + stride, stride, device=samples.device), size, num)
            for size, stride, num in zip(shape, strides, samples.shape[1:3], strict=True)
        ]
        rows, cols = len(matrices[0]), len(matrices[1])
        if max(strides) == 1:
            # the last grid is the result, with the pixels of a coil side by side
            grid = samples.new_empty((batch, num_maps, coils, rows, cols)).permute(0, 3, 4, 2, 1)
        else:
            grid = samples.new_empty((batch, rows, cols, coils, num_maps))
        step = max(1, _chunk_rows(samples, cols, num_maps, max_memory) // batch)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            matrix = _interpolate(samples, matrices[0][start:stop], matrices[1])
            if coarse is None:
                values, vectors = _exact(matrix, num_maps)
            else:
                halved = (previous[0] > strides[0], previous[1] > strides[1])
                values, vectors = _iterate(matrix, _between(coarse, start, stop, cols, halved), crop)
            if max(strides) == 1:
                vectors = _crop_and_remove_phase(vectors, values, crop)
            grid[:, start:stop] = vectors
        coarse, previous = grid, strides
    return grid.permute(0, 4, 3, 1, 2)


def _exact(matrix: Tensor, num_maps: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (..., num_maps) and their eigenvectors (..., coils, num_maps)."""
    values, vectors = torch.linalg.eigh(matrix)
    return values[..., -num_maps:].flip(-1), vectors[..., -num_maps:].flip(-1)


def _project(basis: Tensor, vectors: Tensor) -> Tensor:
    """B B^H x for each pixel; a sum, as a product of matrices this small is slower."""
    parts = [
        b * (b.conj() * vectors).sum(dim=-2, keepdim=True) for b in basis.split(1, dim=-1)
    ]
    return sum(parts[1:], parts[0])


def _orthonormalize(vectors: Tensor) -> Tensor:
    """Gram-Schmidt over the last axis; zero stays zero."""
    done: list[Tensor] = []
    for v in vectors.split(1, dim=-1):
        if done:
            v = v - _project(torch.cat(done, dim=-1), v)
        norm = torch.view_as_real(v).square().sum(dim=(-3, -1)).unsqueeze(-2).sqrt()
        done.append(v / norm.clamp(min=torch.finfo(norm.dtype).tiny))
    return torch.cat(done, dim=-1) if len(done) > 1 else done[0]


def _insert_midpoints(vectors: Tensor, dim: int) -> Tensor:
    """n points along dim to 2 n - 1. The neighbour is projected, as its phase (or basis) is arbitrary."""
    left, right = vectors.narrow(dim, 0, vectors.shape[dim] - 1), vectors.narrow(dim, 1, vectors.shape[dim] - 1)
    middle = _orthonormalize(left + _project(right, left))
    pairs = torch.stack((left, middle), dim=dim + 1).flatten(dim, dim + 1)
    return torch.cat((pairs, vectors.narrow(dim, vectors.shape[dim] - 1, 1)), dim=dim)


def _between(coarse: Tensor, start: int, stop: int, cols: int, halved: tuple[bool, bool]) -> Tensor:
    """Rows start to stop of a grid with the stride halved, from the coarse one."""
    if halved[0]:
        first = start // 2
        vectors = _insert_midpoints(coarse[:, first : stop // 2 + 1], 1)
        vectors = vectors[:, start - 2 * first :][:, : stop - start]
    else:
        vectors = coarse[:, start:stop]
    return _insert_midpoints(vectors, 2)[:, :, :cols] if halved[1] else vectors


def _iterate(matrix: Tensor, vectors: Tensor, crop: float) -> tuple[Tensor, Tensor]:
    """One step of orthogonal iteration with Rayleigh-Ritz, exact eigenvectors for pixels that it leaves behind."""
    products = matrix @ vectors
    if vectors.shape[-1] == 1:
        values = (vectors.conj() * products).sum(dim=-2).real
    else:
        values, rotation = torch.linalg.eigh(vectors.mH @ products)
        values, rotation = values.flip(-1), rotation.flip(-1)
        vectors, products = vectors @ rotation, products @ rotation
    error = torch.view_as_real(products - vectors * values.unsqueeze(-2)).square().sum(dim=(-3, -1)).sqrt()
    vectors = _orthonormalize(products)
    # an eigenvalue lies within the residual of the Ritz value: pixels that will be cropped may stay as they are
    behind = ((error > _MAX_RESIDUAL) & (values + error > crop)).any(dim=-1).nonzero(as_tuple=True)
    values[behind], vectors[behind] = _exact(matrix[behind], vectors.shape[-1])
    return values, vectors


def _crop_and_remove_phase(vectors: Tensor, values: Tensor, crop: float) -> Tensor:
    """Zero where the eigenvalue is not above crop, coil 0 real and not negative elsewhere."""
    first = vectors[..., :1, :]
    phase = torch.where(first == 0, 1, first.sgn().conj())
    return vectors * torch.where(values.unsqueeze(-2) > crop, phase, 0)
