"""K-space of a volume in three dimensions, from simulated coils around the readout axis.

Axes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

from collections.abc import Iterator

import numpy as np
from scipy import fft
from scipy.interpolate import make_interp_spline

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.simulate import (
    coil_fields,
    noise_deviation,
    pixel_centers,
    simulate_phase,
    white_noise,
)

__all__ = ["fft3c", "ifft3c", "simulate_kspace_3d", "simulate_sens_maps_3d"]

COARSE_GRID = 24  # points a side for the coil fields, which are smooth
AXES = (-3, -2, -1)
Shape = tuple[int, int, int]


def fft3c(volume: np.ndarray) -> np.ndarray:
    """Centered orthonormal Fourier transform of the last three axes."""
    return fft.fftshift(fft.fftn(fft.ifftshift(volume, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def ifft3c(kspace: np.ndarray) -> np.ndarray:
    """The inverse of `fft3c`."""
    return fft.fftshift(fft.ifftn(fft.ifftshift(kspace, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def simulate_sens_maps_3d(
    num_coils: int,
    shape: Shape,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Sensitivity maps of circular loops on a cylinder around the readout axis, as `simulate_sens_maps` in 2D.

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1,    x along cols, y along rows

    The coils go around the cylinder one after the other, from ring to ring. Half a side of the field of view, whose
    longest side goes from -1 to 1, is the unit of length.

    Args:
        num_coils: number of coils; a single one has a sensitivity of one everywhere.
        shape: (readout, rows, cols).
        num_rings: rings of coils, evenly over the readout axis.
        distance: of the loops' centers from the axis; above 1.42, out of the field of view.
        radius: of the loops.
        jitter: how far, in their spacing, the loops are moved at random around the axis, outwards and along it; 0 to
            0.5.
        seed: of the places of the loops.

    Returns:
        An iterator over the coils' maps, complex64 (readout, rows, cols): those of a full scan are too many to keep.

    Raises:
        ValueError: at once, if an argument is out of its range.
    """
    check(len(shape) == 3 and min(shape) >= 2, "shape", "(readout, rows, cols), at least 2 each", shape)
    check(num_rings >= 1, "num_rings", "at least 1", num_rings)
    fine = pixel_centers(shape)
    coarse = [np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in fine]
    points = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)  # (x, y, z), z along the readout
    rings = (2 * (np.arange(num_coils) % num_rings) + 1 - num_rings) / num_rings * shape[0] / max(shape)
    fields = coil_fields(points, num_coils, distance=distance, radius=radius, jitter=jitter, seed=seed, heights=rings)
    if num_coils == 1:
        return iter([np.ones(shape, dtype=np.complex64)])

    def refine(values: np.ndarray) -> np.ndarray:
        for axis, (nodes, places) in enumerate(zip(coarse, fine, strict=True)):
            if nodes.size < places.size:
                values = make_interp_spline(nodes, values, k=3, axis=axis)(places)
            values = values.astype(np.complex64)
        return values

    kept = list(fields)
    norm = np.sqrt(sum((np.abs(refine(field)) ** 2 for field in kept), np.zeros(shape, dtype=np.float32)))
    return (refine(field) / norm for field in kept)


def simulate_kspace_3d(
    volume: np.ndarray, *, num_coils: int = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """K-space of a volume coil by coil, as `simulate_kspace` in 2D; the memory is that of a few coils.

    Args:
        volume: (readout, rows, cols), real or complex. A real one gets a smooth phase, see `simulate_phase`; a
            complex one keeps its own.
        num_coils: number of coils, see `simulate_sens_maps_3d`.
        snr, phase_strength, seed: see `simulate_kspace`.

    Returns:
        An iterator over the coils' k-space, complex64 (readout, rows, cols).

    Raises:
        ValueError: at once, if an argument is out of its range, or the volume is not finite.
    """
    volume = np.asarray(volume)
    deviation = noise_deviation(volume, snr, "volume", "(readout, rows, cols)")
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    maps = simulate_sens_maps_3d(num_coils, shape, seed=seed)
    if not np.iscomplexobj(volume):
        volume = volume * simulate_phase(shape, strength=phase_strength, seed=seed)
    generator = np.random.default_rng([seed, 2])

    def scan(sens_map: np.ndarray) -> np.ndarray:
        kspace = fft3c((volume * sens_map).astype(np.complex64, copy=False))
        kspace += deviation * white_noise(generator, shape)
        return kspace

    return map(scan, maps)
