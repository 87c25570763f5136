"""Generated knees in three dimensions: the anatomy of `draw_knee`, with round bones and limb.

Axes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

import dataclasses

import numpy as np

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.anatomy import (
    CONTRASTS,
    OVERSAMPLING,
    Knee,
    Slice,
    band_noise,
    cut,
    join,
    segment,
    smoothstep,
)

__all__ = ["DEPTH", "draw_knee_volume"]

DEPTH = 1.12  # half the field of view from front to back, in halves of the shorter side of a coronal plane
Shape = tuple[int, int, int]


def draw_knee_volume(shape: Shape, *, contrast: str = "CORPD_FBK", seed: int = 0) -> np.ndarray:
    """Magnitude volume of a generated knee: the anatomy of `draw_knee`, with round bones and limb.

    Coronal planes are drawn from front to back. Textures change over the depth as fast as within a plane, so that
    (ky, kz) planes have them too. The limb ends before the field of view does: the first and last planes are empty.

    Args:
        shape: (readout, rows, cols), at least (32, 32, 8).
        contrast: see `draw_knee`.
        seed: of the subject.

    Returns:
        The volume, float32 (readout, rows, cols), from 0 to about 1.

    Raises:
        ValueError: if an argument is out of its range.
    """
    check_volume(shape, contrast)
    knee = _SolidKnee((shape[0], shape[1]), CONTRASTS[contrast], seed)
    volume = np.empty(shape, dtype=np.float32)
    for plane in range(shape[2]):
        volume[..., plane] = knee.draw_plane(DEPTH * (2 * plane + 1 - shape[2]) / shape[2])
    return volume


def check_volume(shape: Shape, contrast: str) -> None:
    """Raise ValueError unless `draw_knee_volume` can draw it."""
    fits = len(shape) == 3 and min(shape[:2]) >= 32 and shape[2] >= 8
    check(fits, "shape", "(readout, rows, cols), at least (32, 32, 8)", shape)
    check(contrast in CONTRASTS, "contrast", f"one of {sorted(CONTRASTS)}", repr(contrast))


class _SolidKnee(Knee):
    """A knee whose planes are painted as the middle slice of a `Knee`, with regions that depend on z as well.

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
        return self.draw(0.0)[0]

    def _texture(self, name: str, recipe: dict[str, float], z: float) -> np.ndarray:
        """A noise at z: a mixture of independent ones that are somewhat more than half a wavelength apart."""
        place = (z + 2 * DEPTH) / (0.6 * recipe["wavelength"] * self.pixel)
        first = int(place)
        for frame in (first, first + 1):
            if (name, frame) not in self.frames:
                generator = np.random.default_rng([self.seed, list(self.textures).index(name), frame])
                self.frames[name, frame] = band_noise(generator, self.size, **recipe)
        self.frames.pop((name, first - 1), None)
        angle = np.float32(np.pi / 2 * (place - first))
        return np.cos(angle) * self.frames[name, first] + np.sin(angle) * self.frames[name, first + 1]

    def _paint_envelope(self, part: Slice) -> tuple[np.ndarray, np.ndarray]:
        return super()._paint_envelope(dataclasses.replace(part, x=np.hypot(part.x, self.z)))

    def _bones(self, part: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = part.x / self.bone, part.y, self.z
        rough = 0.0025 * part.noise["edge"]
        shaft = np.hypot(x, z + 0.05) - 0.17 - 0.2 * smoothstep(y, -0.75, -0.15)
        condyles = [_ellipsoid((x - 0.25 * side, y + 0.16, z - 0.06), (0.25, 0.23, 0.42)) for side in (-1, 1)]
        # the notch between the condyles opens to the back
        notch = _ellipsoid((x - 0.01, y - 0.08, z - 0.4), (0.1, 0.25, 0.45))
        femur = cut(join(cut(shaft, y + 0.08), np.minimum(*condyles)), -notch)
        patella = _ellipsoid((x, y + 0.3, z + 0.54), (0.2, 0.22, 0.1))
        eminence = 0.035 * np.exp(-(((np.abs(x) - 0.045) / 0.04) ** 2) - (z / 0.2) ** 2)
        plateau = 0.115 - eminence + 0.012 * np.cos(12 * np.abs(x) - 3)
        width = 0.47 - 0.3 * smoothstep(y, 0.12, 0.75)
        tibia = cut(np.hypot(x - 0.02, 1.25 * z) - width, plateau - y)
        head = 0.03 * np.exp(-(((y - 0.35) / 0.12) ** 2))
        fibula = np.hypot(segment(x, y, (0.47, 0.37), (0.45, 2.5)), z - 0.15) - 0.07 - head
        return np.minimum(femur, patella) + rough, tibia + rough, fibula + rough

    def _paint_joint(self, part: Slice, bones: np.ndarray) -> None:
        super()._paint_joint(dataclasses.replace(part, x=np.hypot(part.x, self.z)), bones)

    def _paint_ligaments(self, part: Slice, kind: str) -> None:
        if abs(self.z - 0.05) < (0.12 if kind == "cruciate" else 0.08):
            super()._paint_ligaments(part, kind)


def _ellipsoid(place: tuple[np.ndarray, np.ndarray, float], radii: tuple[float, float, float]) -> np.ndarray:
    (x, y, z), (width, height, depth) = place, radii
    return (np.sqrt((x / width) ** 2 + (y / height) ** 2 + (z / depth) ** 2) - 1) * min(radii)
