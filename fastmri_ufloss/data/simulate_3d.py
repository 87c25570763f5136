"""A generated knee in three dimensions, and its k-space from simulated coils around the readout axis.

Axes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import fft
from scipy.interpolate import make_interp_spline

from fastmri_ufloss.data.anatomy import (
    CONTRASTS,
    OVERSAMPLING,
    _cut,
    _join,
    _Knee,
    _segment,
    _Slice,
    _smoothstep,
    band_noise,
)
from fastmri_ufloss.data.coils import PHASE_ORDER, check, loop_field
from fastmri_ufloss.data.simulate import OBJECT_THRESHOLD

__all__ = [
    "DEPTH",
    "draw_knee_volume",
    "fft3c",
    "ifft3c",
    "simulate_kspace_3d",
    "simulate_phase_3d",
    "simulate_sens_maps_3d",
]

DEPTH = 1.12  # half the field of view from front to back, in halves of the shorter side of a coronal plane
COARSE_GRID = 24  # points a side for the coil fields, which are smooth
AXES = (-3, -2, -1)
Shape = tuple[int, int, int]
Point3 = tuple[float, float, float]


def fft3c(volume: np.ndarray) -> np.ndarray:
    """Centred orthonormal Fourier transform of the last three axes."""
    return fft.fftshift(fft.fftn(fft.ifftshift(volume, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def ifft3c(kspace: np.ndarray) -> np.ndarray:
    """The inverse of `fft3c`."""
    return fft.fftshift(fft.ifftn(fft.ifftshift(kspace, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def draw_knee_volume(shape: Shape, *, contrast: str = "CORPD_FBK", seed: int = 0) -> np.ndarray:
    """Magnitude volume of a generated knee: the anatomy of `draw_knee`, with round bones and limb.

    Coronal planes are drawn from front to back. Textures change over the depth as fast as within a plane, so
    that the planes across the readout, which are (ky, kz), have them too. The limb ends before the field of
    view from front to back does: the first and the last planes are empty.

    Args:
        shape: (readout, rows, cols), at least (32, 32, 8).
        contrast: see `draw_knee`.
        seed: of the subject.

    Returns:
        The volume, float32 (readout, rows, cols), from 0 to about 1.

    Raises:
        ValueError: if an argument is out of its range.
    """
    fits = len(shape) == 3 and min(shape[:2]) >= 32 and shape[2] >= 8
    check(fits, "shape", "(readout, rows, cols), at least (32, 32, 8)", shape)
    check(contrast in CONTRASTS, "contrast", f"one of {sorted(CONTRASTS)}", repr(contrast))
    knee = _SolidKnee((shape[0], shape[1]), CONTRASTS[contrast], seed)
    volume = np.empty(shape, dtype=np.float32)
    for plane in range(shape[2]):
        volume[..., plane] = knee.draw_plane(DEPTH * (2 * plane + 1 - shape[2]) / shape[2])
    return volume


class _SolidKnee(_Knee):
    """A knee whose planes are painted as the middle slice of a `_Knee`, with regions that depend on z as well.

    z goes from front to back, in the unit of x and y.
    """

    def __init__(self, shape: tuple[int, int], values: dict[str, float], seed: int) -> None:
        self.seed = seed
        self.z = 0.0
        self.recipes: list[dict[str, float]] = []
        self.frames: dict[tuple[str, int], np.ndarray] = {}
        super().__init__(shape, values, seed)
        self.scale *= 0.9
        draw = self.generator.uniform
        self.solid_muscles = [
            (x + draw(-0.1, 0.1), y + draw(-0.12, 0.12), draw(-0.2, 0.2), draw(0.85, 1.15))
            for y in np.arange(-2.7, 2.8, 0.45)
            for x in (-0.62, -0.33, 0.0, 0.33, 0.62)
        ]
        self.solid_vessels, self.vessel_depths = self.vessels, draw(-0.7, 0.7, len(self.vessels))

    def _noise(self, wavelength: float, **options: float) -> list[np.ndarray]:
        self.recipes.append({"wavelength": wavelength * OVERSAMPLING, **options})  # in the order of the textures
        return []

    def draw_plane(self, z: float) -> np.ndarray:
        """The coronal plane at z."""
        self.z = z / self.scale
        for recipe, name in zip(self.recipes, self.textures, strict=True):
            noise = self._texture(name, recipe, z)
            self.textures[name] = [noise, noise]
        # muscles run aslant through the planes, so that they end in those across the readout as well
        moved = [(x, y - 1.4 * self.z, slant, gain) for x, y, slant, gain in self.solid_muscles]
        self.muscles = [muscle for muscle in moved if abs(muscle[1]) < 1.8]
        self.vessels = []
        for index, (x, y, turn, size, shift) in enumerate(self.solid_vessels):
            if index < 5:  # across the planes, winding
                x, y = x + 0.3 * (turn - 0.5) * self.z, y + 0.1 * np.sin(4 * self.z + 6 * shift)
            else:  # within a plane
                size = size - ((self.z - self.vessel_depths[index]) / 0.03) ** 2
            self.vessels.append([x, y, turn, size, shift])
        return self.draw(0.0)

    def _texture(self, name: str, recipe: dict[str, float], z: float) -> np.ndarray:
        """A noise at z: a mixture of independent ones that are somewhat more than half a wavelength apart."""
        place = (z + 2 * DEPTH) / (0.6 * recipe["wavelength"] * self.pixel)
        first = int(place)
        for number in (first, first + 1):
            if (name, number) not in self.frames:
                generator = np.random.default_rng([self.seed, list(self.textures).index(name), number])
                self.frames[name, number] = band_noise(generator, self.size, **recipe)
        self.frames.pop((name, first - 1), None)
        angle = np.float32(np.pi / 2 * (place - first))
        return np.cos(angle) * self.frames[name, first] + np.sin(angle) * self.frames[name, first + 1]

    def _paint_envelope(self, part: _Slice) -> tuple[np.ndarray, np.ndarray]:
        return super()._paint_envelope(dataclasses.replace(part, x=np.hypot(part.x, self.z)))

    def _bones(self, part: _Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = part.x / self.bone, part.y, self.z
        rough = 0.0025 * part.noise["edge"]
        shaft = np.hypot(x, z + 0.05) - 0.17 - 0.2 * _smoothstep(y, -0.75, -0.15)
        condyles = [_ellipsoid((x - 0.25 * side, y + 0.16, z - 0.06), (0.25, 0.23, 0.42)) for side in (-1, 1)]
        # the notch between the condyles opens to the back
        notch = _ellipsoid((x - 0.01, y - 0.08, z - 0.4), (0.1, 0.25, 0.45))
        femur = _cut(_join(_cut(shaft, y + 0.08), np.minimum(*condyles)), -notch)
        patella = _ellipsoid((x, y + 0.3, z + 0.54), (0.2, 0.22, 0.1))
        eminence = 0.035 * np.exp(-(((np.abs(x) - 0.045) / 0.04) ** 2) - (z / 0.2) ** 2)
        plateau = 0.115 - eminence + 0.012 * np.cos(12 * np.abs(x) - 3)
        width = 0.47 - 0.3 * _smoothstep(y, 0.12, 0.75)
        tibia = _cut(np.hypot(x - 0.02, 1.25 * z) - width, plateau - y)
        head = 0.03 * np.exp(-(((y - 0.35) / 0.12) ** 2))
        fibula = np.hypot(_segment(x, y, (0.47, 0.37), (0.45, 2.5)), z - 0.15) - 0.07 - head
        return np.minimum(femur, patella) + rough, tibia + rough, fibula + rough

    def _paint_joint(self, part: _Slice, bones: np.ndarray) -> None:
        super()._paint_joint(dataclasses.replace(part, x=np.hypot(part.x, self.z)), bones)

    def _paint_ligaments(self, part: _Slice, kind: str) -> None:
        if abs(self.z - 0.05) < (0.12 if kind == "cruciate" else 0.08):
            super()._paint_ligaments(part, kind)


def _ellipsoid(place: tuple[np.ndarray, np.ndarray, float], radii: Point3) -> np.ndarray:
    (x, y, z), (width, height, depth) = place, radii
    return (np.sqrt((x / width) ** 2 + (y / height) ** 2 + (z / depth) ** 2) - 1) * min(radii)


def simulate_sens_maps_3d(
    num_coils: int,
    shape: Shape,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Sensitivity maps of circular loops on a cylinder around the readout axis, as `simulate_sens_maps` in 2D.

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1,    x along cols, y along rows

    The coils go around the cylinder one after the other, from ring to ring. Half a side of the field of view,
    whose longest side goes from -1 to 1, is the unit of length.

    Args:
        num_coils: number of coils; a single one has a sensitivity of one everywhere.
        shape: (readout, rows, cols).
        num_rings: rings of coils, evenly over the readout axis.
        distance: of the loops' centres from the axis; above 1.42, out of the field of view.
        radius: of the loops.
        jitter: how far, in their spacing, the loops are moved at random around the axis, outwards and along
            it; 0 to 0.5.
        seed: of the places of the loops.

    Returns:
        The maps, complex64 (num_coils, readout, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    options = {"num_rings": num_rings, "distance": distance, "radius": radius, "jitter": jitter}
    return np.stack(list(_coil_maps(num_coils, shape, seed=seed, **options)))  # type: ignore[arg-type]


def simulate_phase_3d(shape: Shape, *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase of unit magnitude, as `simulate_phase` in 2D.

        exp(i phi),    phi = sum_klm a_klm cos(pi k z) cos(pi l y) cos(pi m x) / (1 + k^2 + l^2 + m^2)

    Args:
        shape: (readout, rows, cols).
        strength: standard deviation of phi over the volume, in radians; at least 0.
        seed: of the coefficients a_klm, k, l, m = 0...3.

    Returns:
        The phase factor, complex64 (readout, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check_shape(shape)
    check(strength >= 0, "strength", "at least 0", strength)
    orders = np.arange(PHASE_ORDER + 1)
    weights = np.random.default_rng([seed, 1]).standard_normal((orders.size,) * 3)
    weights /= 1 + orders[:, None, None] ** 2 + orders[:, None] ** 2 + orders**2
    offset, weights[0, 0, 0] = weights[0, 0, 0], 0
    phase = weights
    for size in shape:  # the last axis made goes to the end: after three of them the order is right again
        waves = np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, orders)).astype(np.float32)
        phase = np.tensordot(phase.astype(np.float32), waves, axes=(0, 1))
    return np.exp(1j * np.float32(strength) * (phase / phase.std() + np.float32(offset))).astype(np.complex64)


def simulate_kspace_3d(
    volume: np.ndarray, *, num_coils: int = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """K-space of a volume coil by coil, in the centred orthonormal convention, with complex white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the voxels above a tenth of the maximum. A coil takes a few volumes of
    memory, whatever the number of coils.

    Args:
        volume: (readout, rows, cols), real or complex. A real one gets a smooth phase, see `simulate_phase_3d`;
            a complex one keeps its own.
        num_coils: number of coils, see `simulate_sens_maps_3d`.
        snr: mean magnitude of the object divided by the standard deviation of the complex noise of a coil's
            image; infinite for none.
        phase_strength: of the phase of a real volume, in radians.
        seed: of coils, phase and noise.

    Returns:
        An iterator over the coils' k-space, complex64 (readout, rows, cols).

    Raises:
        ValueError: at once, if an argument is out of its range, or the volume is not finite.
    """
    volume = np.asarray(volume)
    check(volume.ndim == 3 and volume.size > 0, "volume", "of shape (readout, rows, cols)", volume.shape)
    check(bool(np.isfinite(volume).all()), "volume", "finite", "NaN or infinite values")
    check(snr > 0, "snr", "above 0", snr)
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    maps = _coil_maps(num_coils, shape, seed=seed)
    magnitude = np.abs(volume)
    brightest, deviation = float(magnitude.max()), 0.0
    if brightest > 0:
        deviation = float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr
    if not np.iscomplexobj(volume):
        volume = volume * simulate_phase_3d(shape, strength=phase_strength, seed=seed)
    generator = np.random.default_rng([seed, 2])

    def scan(sens_map: np.ndarray) -> np.ndarray:
        kspace = fft3c((volume * sens_map).astype(np.complex64, copy=False))
        noise = generator.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        kspace += np.float32(deviation / np.sqrt(2)) * noise
        return kspace

    return map(scan, maps)


def _coil_maps(
    num_coils: int,
    shape: Shape,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """The maps of `simulate_sens_maps_3d` coil by coil; arguments are checked at once."""
    _check_shape(shape)
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(num_rings >= 1, "num_rings", "at least 1", num_rings)
    check(distance > 1.42, "distance", "above 1.42", distance)
    check(radius > 0, "radius", "above 0", radius)
    check(0 <= jitter <= 0.5, "jitter", "from 0 to 0.5", jitter)
    if num_coils == 1:
        return iter([np.ones(shape, dtype=np.complex64)])
    fine = [(2 * np.arange(size) + 1 - size) / max(shape) for size in shape]
    coarse = [np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in fine]
    points = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)  # (x, y, z), z along the readout
    spacing = 2 * np.pi / num_coils
    moves = jitter * np.random.default_rng([seed, 0]).uniform(-1, 1, (num_coils, 3)) * min(spacing, 1)
    fields = []
    for coil, (turn, outward, lift) in enumerate(moves):
        angle = spacing * coil + turn
        ring = (2 * (coil % num_rings) + 1 - num_rings) / num_rings * shape[0] / max(shape)
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        field = loop_field(points, (distance + abs(outward)) * direction + [0, 0, ring + lift], -direction, radius)
        fields.append(field[..., 0] - 1j * field[..., 1])
    # the coils' maps of a full scan are too many to keep: each is refined twice
    squares = np.zeros(shape, dtype=np.float32)
    for field in fields:
        squares += np.abs(_refine(field, coarse, fine)) ** 2
    norm = np.sqrt(squares)
    return (_refine(field, coarse, fine) / norm for field in fields)


def _refine(values: np.ndarray, coarse: list[np.ndarray], fine: list[np.ndarray]) -> np.ndarray:
    """Values on a coarse grid by cubic splines on a fine one, complex64."""
    for axis, (nodes, places) in enumerate(zip(coarse, fine, strict=True)):
        if nodes.size < places.size:
            values = make_interp_spline(nodes, values, k=3, axis=axis)(places)
        values = values.astype(np.complex64)
    return values


def _check_shape(shape: Shape) -> None:
    check(len(shape) == 3 and min(shape) >= 2, "shape", "(readout, rows, cols), at least 2 each", shape)
