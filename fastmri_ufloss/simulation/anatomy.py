"""Generated knees, coronal slices and volumes: tissues that differ by their texture, without a download.

Lengths are in units of half the shorter side of the image; x goes to the right and y downwards from its center, and z
from front to back. Tissues are painted one over the other, from the skin to the joint, at twice the resolution. A
region is given by the distance from its edge, negative inside; noise moves the edges.
"""

import dataclasses
import math

import numpy as np
from scipy import fft

from fastmri_ufloss.checks import check

__all__ = ["BONE", "CARTILAGE", "CONTRASTS", "DEPTH", "band_noise", "draw_knee", "draw_knee_volume"]

BONE, CARTILAGE = 1, 2
OVERSAMPLING = 2
DEPTH = 1.12  # half the field of view of a volume from front to back

# proton density without and with fat suppression
CONTRASTS: dict[str, dict[str, float]] = {
    "CORPD_FBK": {
        "skin": 0.42, "fat": 0.92, "septum": 0.40, "fascia": 0.22, "muscle": 0.42, "streak": 0.80,
        "marrow": 0.80, "trabecula": -0.42, "red": -0.16, "cortex": 0.05, "cartilage": 0.66, "fluid": 0.78,
        "meniscus": 0.13, "ligament": 0.12, "fiber": 0.24, "vessel": 0.25, "wall": 0.45, "nerve": 0.52,
    },
    "CORPDFS_FBK": {
        "skin": 0.50, "fat": 0.20, "septum": 0.44, "fascia": 0.16, "muscle": 0.50, "streak": 0.30,
        "marrow": 0.17, "trabecula": 0.55, "red": 0.60, "cortex": 0.05, "cartilage": 0.74, "fluid": 1.00,
        "meniscus": 0.13, "ligament": 0.11, "fiber": 0.26, "vessel": 0.95, "wall": 0.35, "nerve": 0.66,
    },
}  # fmt: skip

Point = tuple[float, float]  # (x, y)
# start, end and half width
LIGAMENTS: dict[str, list[tuple[Point, Point, float]]] = {
    "collateral": [
        ((-0.5, -0.2), (-0.46, 0.24), 0.012), ((-0.47, 0.2), (-0.3, 0.62), 0.012),
        ((0.5, -0.18), (0.53, 0.34), 0.014), ((0.36, -0.5), (0.5, -0.15), 0.01),
    ],
    "cruciate": [((0.12, -0.16), (-0.04, 0.09), 0.032), ((-0.09, -0.1), (0.02, 0.1), 0.028)],
}  # fmt: skip


def draw_knee(
    shape: tuple[int, int], *, num_slices: int = 6, contrast: str = "CORPD_FBK", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude images of a generated knee from front to back, and the class that covers most of each pixel.

    Images and classes are (num_slices, rows, cols), at least 32 x 32: float32 from 0 to about 1, and uint8, 1 for
    bone, 2 for cartilage, 0 elsewhere. With ``"CORPD_FBK"`` fat is bright, with ``"CORPDFS_FBK"`` it is suppressed.
    ValueError if an argument is out of its range.
    """
    check(len(shape) == 2 and min(shape) >= 32, "shape", "(rows, cols), at least 32 each", shape)
    check(num_slices >= 1, "num_slices", "at least 1", num_slices)
    check(contrast in CONTRASTS, "contrast", f"one of {sorted(CONTRASTS)}", repr(contrast))
    knee = Knee(shape, CONTRASTS[contrast], seed)
    images, classes = zip(*map(knee.draw, np.linspace(-0.75, 0.75, num_slices)), strict=True)
    return np.stack(images), np.stack(classes)


def draw_knee_volume(shape: tuple[int, int, int], *, contrast: str = "CORPD_FBK", seed: int = 0) -> np.ndarray:
    """Magnitude volume, float32 from 0 to about 1, of a knee as `draw_knee` draws, with round bones and limb.

    The shape is (readout, rows, cols), at least (32, 32, 8): from head to foot, from left to right, from front to
    back, where the first and last planes are empty. ValueError if an argument is out of its range.
    """
    check_volume(shape, contrast)
    knee = _SolidKnee((shape[0], shape[1]), CONTRASTS[contrast], seed)
    planes = [knee.draw_plane(DEPTH * (2 * plane + 1 - shape[2]) / shape[2]) for plane in range(shape[2])]
    return np.stack(planes, axis=-1)


def check_volume(shape: tuple[int, int, int], contrast: str) -> None:
    """Raise ValueError unless `draw_knee_volume` takes these arguments."""
    fits = len(shape) == 3 and min(shape[:2]) >= 32 and shape[2] >= 8
    check(fits, "shape", "(readout, rows, cols), at least (32, 32, 8)", shape)
    check(contrast in CONTRASTS, "contrast", f"one of {sorted(CONTRASTS)}", repr(contrast))


def band_noise(
    generator: np.random.Generator,
    shape: tuple[int, int],
    *,
    wavelength: float,
    bandwidth: float = 0.4,
    elongation: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """Band-passed Gaussian noise (rows, cols) of zero mean and unit variance, float32.

        |N(f)| = exp(-(ln(|f'| wavelength) / bandwidth)^2 / 2),    f' = (f_along * elongation, f_across)

    Args:
        wavelength: at the center of the band, across the structures, in pixels.
        elongation: how many times longer the structures are than they are wide.
        angle: between their long axis and the downward direction, in radians.
    """
    rows, cols = shape
    y, x = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)
    along = elongation * (np.cos(angle) * y + np.sin(angle) * x)
    across = np.cos(angle) * x - np.sin(angle) * y
    radius = np.sqrt(along**2 + across**2)
    radius[0, 0] = 1e-6
    gain = np.exp(-((np.log(radius * wavelength) / bandwidth) ** 2) / 2).astype(np.float32)
    noise = fft.irfft2(fft.rfft2(generator.standard_normal(shape, dtype=np.float32)) * gain, s=shape)
    return noise / max(float(noise.std()), 1e-12)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high``, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def join(a: np.ndarray, b: np.ndarray, blend: float = 0.04) -> np.ndarray:
    """Union of two regions with a rounded crease."""
    return -blend * np.logaddexp(-a / blend, -b / blend)


def cut(a: np.ndarray, b: np.ndarray, blend: float = 0.02) -> np.ndarray:
    """Common part of two regions with a rounded edge."""
    return blend * np.logaddexp(a / blend, b / blend)


def segment(x: np.ndarray, y: np.ndarray, start: Point, end: Point) -> np.ndarray:
    """Distance from the line between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - t * dx, y - start[1] - t * dy)


def shin(x: np.ndarray, y: np.ndarray, z: float = 0.0, *, fibula_z: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The regions of tibia and fibula."""
    eminence = 0.035 * np.exp(-(((np.abs(x) - 0.045) / 0.04) ** 2) - (z / 0.2) ** 2)
    plateau = 0.115 - eminence + 0.012 * np.cos(12 * np.abs(x) - 3)
    width = 0.47 - 0.3 * smoothstep(y, 0.12, 0.75)
    tibia = cut(np.hypot(x - 0.02, 1.25 * z) - width, plateau - y)
    head = 0.03 * np.exp(-(((y - 0.35) / 0.12) ** 2))
    return tibia, np.hypot(segment(x, y, (0.47, 0.37), (0.45, 2.5)), z - fibula_z) - 0.07 - head


def ellipse(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """About the distance from an ellipse of half axes ``width`` and ``height``."""
    return (np.hypot(x / width, y / height) - 1) * min(width, height)


@dataclasses.dataclass
class Slice:
    """A slice being painted: coordinates of its pixels, noise by name, the image and the classes."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray  # distance from the axis of the limb
    depth: float
    bone: float  # width of the bones
    noise: dict[str, np.ndarray]
    image: np.ndarray
    classes: np.ndarray
    pixel: float

    def paint(
        self, distance: np.ndarray, value: np.ndarray | float, opacity: float = 1.0, *, label: int | None = None
    ) -> None:
        """Lay a value, and a class, over a region; its edge is about a pixel of the final image wide."""
        alpha = opacity * np.clip(0.5 - distance / (1.5 * self.pixel), 0, 1)
        self.image += alpha * (value - self.image)
        if label is not None:
            self.classes[distance < 0] = label

    def lines(self, name: str, width: float) -> np.ndarray:
        """Opacity of thin curves of a width, where a noise changes its sign."""
        noise = self.noise[name]
        slope_y, slope_x = np.gradient(noise)
        distance = np.abs(noise) / (np.hypot(slope_y, slope_x) + 1e-3)
        return np.clip(0.5 + width / (2 * self.pixel) - distance, 0, 1)


class Knee:
    """One subject: shape, textures and intensities, fixed by the seed."""

    def __init__(self, shape: tuple[int, int], values: dict[str, float], seed: int) -> None:
        self.z = 0.0
        self.generator = np.random.default_rng(seed)
        self.size = (OVERSAMPLING * shape[0], OVERSAMPLING * shape[1])
        self.pixel = 2 / min(self.size)
        draw = self.generator.uniform
        self.values = {name: value * draw(0.9, 1.1) for name, value in values.items()}
        self.side = -1.0 if draw() < 0.5 else 1.0  # a left or a right knee
        self.scale = draw(0.92, 1.1)
        self.tilt = draw(-0.07, 0.07)
        self.fat = draw(0.07, 0.2)
        self.taper = draw(0.02, 0.12)
        self.bone = draw(0.9, 1.08)
        self.scars = draw(-0.42, -0.34), draw(0.34, 0.4)
        self.strength = {name: draw(0.7, 1.3) for name in ("marrow", "muscle", "fat", "streak")}
        # center (x, y), slant and intensity
        self.muscles = [
            (side * x + draw(-0.1, 0.1), y + draw(-0.12, 0.12), draw(-0.2, 0.2), draw(0.85, 1.15))
            for side in (-1, 1)
            for y in (-0.85, -0.4, 0.45, 0.9)
            for x in (0.33, 0.62)
        ]
        self.vessels: list[list[float]] = draw(size=(14, 5)).tolist()
        # two independent noises of a kind: mixing them changes the texture from slice to slice
        unit = min(self.size) / (2 * OVERSAMPLING)
        self.textures = {
            **{name: self._noise(1.2 * unit) for name in ("warp_x", "warp_y", "slow")},
            "edge": self._noise(0.2 * unit, bandwidth=0.5),
            "septa": self._noise(draw(14, 20), elongation=draw(1.4, 2.2), angle=draw(-0.2, 0.2)),
            "fine_septa": self._noise(draw(7, 10), elongation=draw(1.0, 1.6), angle=draw(-0.4, 0.4)),
            "grain": self._noise(draw(2.6, 3.4), bandwidth=0.3),
            "mesh": self._noise(draw(3.2, 4.6), elongation=draw(1.5, 2.4), angle=draw(-0.15, 0.15)),
            "struts": self._noise(draw(3.5, 5.0), elongation=1.4, angle=1.57 + draw(-0.2, 0.2)),
            "patches": self._noise(draw(12, 18), bandwidth=0.6),
        }
        for index in range(3):
            angle = self.tilt + (index - 1) * draw(0.15, 0.35)
            self.textures[f"fibers{index}"] = self._noise(draw(3.2, 4.8), elongation=draw(5, 9), angle=angle)
            self.textures[f"bundles{index}"] = self._noise(draw(8, 13), elongation=draw(4, 7), angle=angle)

    def _noise(self, wavelength: float, **options: float) -> list[np.ndarray]:
        """Two noises of a wavelength in pixels of the final image."""
        wavelength *= OVERSAMPLING
        return [band_noise(self.generator, self.size, wavelength=wavelength, **options) for _ in range(2)]

    def draw(self, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """The slice at a depth from -1 (front) to 1 (back), and its classes."""
        cosine, sine = math.cos(1.2 * depth), math.sin(1.2 * depth)
        noise = {name: cosine * first + sine * second for name, (first, second) in self.textures.items()}
        rows, cols = self.size
        y = ((np.arange(rows, dtype=np.float32) + 0.5 - rows / 2) * self.pixel / self.scale)[:, None]
        x = ((np.arange(cols, dtype=np.float32) + 0.5 - cols / 2) * self.pixel / self.scale)[None]
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        warped_x = self.side * (cosine * x - sine * y) + 0.03 * noise["warp_x"]
        warped_y = cosine * y + sine * x + 0.03 * noise["warp_y"] + 0.04
        image, painted = np.zeros(self.size, dtype=np.float32), np.zeros(self.size, dtype=np.uint8)
        bone = self.bone * math.sqrt(1 - 0.3 * depth**2)  # narrower to the front and back
        radius = np.hypot(warped_x, self.z)
        part = Slice(warped_x, warped_y, radius, depth, bone, noise, image, painted, self.pixel)
        limb, fascia = self._paint_envelope(part)
        self._paint_muscles(part, fascia)
        self._paint_vessels(part, limb)
        femur, tibia, fibula = (region + 0.0025 * noise["edge"] for region in self._bones(part))
        self._paint_joint(part, np.minimum(femur, tibia))
        if depth > -0.3:  # behind the front of the notch
            self._paint_ligaments(part, "cruciate")
        for bones in (fibula, np.minimum(femur, tibia)):
            self._paint_bones(part, bones)
        self._paint_ligaments(part, "collateral")
        blocks = (rows // OVERSAMPLING, OVERSAMPLING, cols // OVERSAMPLING, OVERSAMPLING)
        classes = np.zeros(blocks[::2], dtype=np.uint8)
        for label in (BONE, CARTILAGE):  # a tie goes to cartilage, which is thin
            classes[(painted.reshape(blocks) == label).mean(axis=(1, 3)) >= 0.5] = label
        return np.maximum(image.reshape(blocks).mean(axis=(1, 3)), 0), classes

    def _paint_envelope(self, part: Slice) -> tuple[np.ndarray, np.ndarray]:
        """Skin, fat in lobules between fibrous septa, and fascia; the regions within skin and fascia."""
        noise, values, strength = part.noise, self.values, self.strength["fat"]
        mottle = 0.05 * noise["slow"] + 0.03 * noise["patches"] + 0.08 * strength * noise["grain"]
        fat = values["fat"] * (1 + mottle)
        # septa fade in and out, as they enter and leave the slice
        fade = smoothstep(noise["grain"] * 0.3 + noise["patches"] * 0.5, -0.9, 0.4)
        septa = part.lines("septa", 0.012) * (0.4 + 0.6 * fade)
        fine = part.lines("fine_septa", 0.006) * fade
        fat += np.clip(strength * (0.8 * septa + 0.5 * fine), 0, 0.9) * (values["septum"] - fat)
        waist = 0.05 * np.exp(-(((part.y - 0.1) / 0.3) ** 2))
        width = (0.82 - self.taper * part.y - waist) * math.sqrt(1 - 0.25 * part.depth**2)
        limb = part.radius - width + 0.002 * noise["edge"]
        part.paint(limb, values["skin"] * (1 + 0.15 * noise["grain"]))
        part.paint(limb + 0.024 + 0.003 * noise["edge"], fat)
        fascia = limb + self.fat * (1 + 0.3 * noise["slow"] + 0.25 * part.y) + 0.03
        part.paint(np.abs(fascia) - 0.007, values["fascia"], 0.8)
        return limb, fascia

    def _paint_muscles(self, part: Slice, fascia: np.ndarray) -> None:
        """Muscle groups: cells around their centers, each with its fibers, apart near the joint."""
        noise, values = part.noise, self.values
        first, second = (np.full(self.size, 9, dtype=np.float32) for _ in range(2))
        kind = np.zeros(self.size, dtype=np.int8)
        gain = np.ones(self.size, dtype=np.float32)
        for index, (x, y, slant, intensity) in enumerate(self.muscles):
            distance = np.hypot(1.9 * (part.x - x + slant * (part.y - y)), 0.6 * (part.y - y))
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            first = np.where(nearer, distance, first)
            kind[nearer] = index % 3
            gain[nearer] = intensity
        gap = 0.035 + 0.015 * noise["edge"] + 0.62 * np.exp(-(((part.y - 0.07) / 0.27) ** 4))
        region = cut((gap - (second - first)) / 2.4, fascia + 0.03 + 0.01 * noise["edge"])
        fibers, bundles = (
            np.choose(kind, [noise[f"{name}{index}"] for index in range(3)]) for name in ("fibers", "bundles")
        )
        grain = 0.1 * fibers + 0.07 * bundles + 0.04 * noise["grain"]
        muscle = values["muscle"] * gain * (1 + self.strength["muscle"] * grain)
        streaks = np.clip(self.strength["streak"] * (0.7 * fibers + 0.7 * bundles - 1.2), 0, 0.9)
        muscle += streaks * (values["streak"] - muscle)
        part.paint(np.abs(region) - 0.005, values["fascia"], 0.5)
        part.paint(region, muscle)

    def _paint_vessels(self, part: Slice, limb: np.ndarray) -> None:
        """Vessels cut across (discs) or along (thin lines), and nerves with their fascicles."""
        noise, values, y = part.noise, self.values, part.y
        winding = part.x + 0.025 * noise["warp_x"] + 0.015 * noise["warp_y"] + 0.01 * noise["slow"]
        for index, (place_x, place_y, turn, size, shift) in enumerate(self.vessels):
            px = (1 if index % 2 else -1) * (0.4 + 0.36 * place_x) + 0.06 * (shift - 0.5) * part.depth
            py = 2 * place_y - 1 + 0.2 * shift * part.depth
            if index < 5:
                radius = 0.007 + 0.016 * size
                distance = ellipse(part.x - px, y - py, radius * (1 + turn), radius)
            else:
                # a vessel leaves the slice, and thins out, towards its ends
                thickness = 0.006 * (size + 1 - np.abs(y - py) / 0.35) + 0.003 * noise["edge"]
                end = (px + 0.4 * (turn - 0.5), py + 0.35)
                distance = segment(winding, y, (px, py - 0.35), end) - thickness
            distance = np.maximum(distance, limb + 0.04)
            if index % 5 == 4:
                part.paint(distance - 0.006, values["nerve"] * (1 + 0.3 * noise["fibers1"]), 0.8)
            else:
                part.paint(distance - 0.008, values["wall"], 0.5)
                part.paint(distance, values["vessel"], 0.5 + 0.4 * size)

    def _bones(self, part: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The regions of femur, tibia and fibula."""
        x, y = part.x / part.bone, part.y
        shaft = cut(np.abs(x) - 0.17 - 0.2 * smoothstep(y, -0.75, -0.15), y + 0.08)
        condyles = [ellipse(x - 0.25, y + 0.16, 0.25, 0.225), ellipse(x + 0.26, y + 0.17, 0.25, 0.23)]
        # the notch between the condyles opens to the back
        notch = ellipse(x - 0.01, y - 0.08, 0.1, 0.12 + 0.13 * part.depth)
        femur = cut(join(shaft, np.minimum(*condyles)), -notch)
        return femur, *shin(x, y)

    def _paint_bones(self, part: Slice, bone: np.ndarray) -> None:
        """Cortex, thick at the shafts, and marrow with trabeculae, red patches and growth plates' scars."""
        noise, values = part.noise, self.values
        away = np.abs(part.y - 0.1)  # from the joint, where spongy bone is dense
        mesh = 0.5 * noise["mesh"] + 0.35 * noise["struts"] + 0.25 * noise["grain"]
        spongy = (1 - 0.55 * smoothstep(away, 0.25, 0.75)) * (0.42 * mesh + 0.35 * part.lines("mesh", 0.004))
        red = smoothstep(noise["patches"], 0.2, 1.6) * smoothstep(away, 0.2, 0.45)
        marrow = 1 + self.strength["marrow"] * values["trabecula"] * spongy + values["red"] * red
        marrow = values["marrow"] * (marrow + 0.05 * noise["slow"])
        for scar in self.scars:
            line = part.y - scar - 0.02 * noise["warp_y"] - 0.008 * noise["edge"]
            marrow *= 1 - 0.45 * np.exp(-((line / 0.01) ** 2)) * (np.abs(part.x) < 0.36)
        part.paint(bone, values["cortex"], label=BONE)
        cortex = 0.013 + 0.022 * smoothstep(away, 0.3, 0.8)
        part.paint(bone + cortex * (1 + 0.2 * noise["edge"]), marrow)

    def _paint_joint(self, part: Slice, bones: np.ndarray) -> None:
        """Fat, fluid, cartilage and menisci between the bones."""
        noise, values = part.noise, self.values
        half = 0.48 * part.bone
        capsule = cut(part.radius - half, np.abs(part.y - 0.08) - 0.11)
        synovium = 0.6 * values["fat"] + 0.25 * values["muscle"]
        part.paint(capsule, synovium * (1 + 0.12 * noise["grain"] + 0.12 * noise["fine_septa"]))
        pools = cut(capsule, bones - 0.03 - 0.006 * noise["patches"], 0.005)
        part.paint(pools, values["fluid"] * (1 + 0.06 * noise["grain"]), 0.85)
        cartilage = values["cartilage"] * (1 + 0.07 * noise["grain"] + 0.05 * noise["struts"])
        coats = cut(bones - 0.026 - 0.004 * noise["edge"], capsule)  # and bones, which are painted over it
        part.paint(coats, cartilage, label=CARTILAGE)
        inner_edge = half * 0.55 + 0.03 * noise["slow"]
        horn = cut(inner_edge - part.radius, part.radius - 1.04 * half)
        menisci = cut(cut(horn, 0.02 - bones, 0.006), np.abs(part.y - 0.09) - 0.09)
        part.paint(menisci, values["meniscus"] * (1 + 0.3 * noise["grain"]), label=0)

    def _paint_ligaments(self, part: Slice, kind: str) -> None:
        """Ligaments and tendons: dark bands with fine bright fibers."""
        x = part.x / part.bone
        bands = [segment(x, part.y, start, end) - radius for start, end, radius in LIGAMENTS[kind]]
        region = np.minimum.reduce(bands) + 0.003 * part.noise["edge"]
        bright = np.clip(0.5 * part.noise["fibers1"] + 0.4 * part.noise["grain"], 0, 1)
        part.paint(region, self.values["ligament"] + self.values["fiber"] * bright, 0.9, label=0)


class _SolidKnee(Knee):
    """A knee whose planes are painted as the middle slice of a `Knee`, with regions that depend on z as well."""

    def __init__(self, shape: tuple[int, int], values: dict[str, float], seed: int) -> None:
        self.seed = seed
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

    def _bones(self, part: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = part.x / part.bone, part.y, self.z
        shaft = np.hypot(x, z + 0.05) - 0.17 - 0.2 * smoothstep(y, -0.75, -0.15)
        condyles = [_ellipsoid((x - 0.25 * side, y + 0.16, z - 0.06), (0.25, 0.23, 0.42)) for side in (-1, 1)]
        # the notch between the condyles opens to the back
        notch = _ellipsoid((x - 0.01, y - 0.08, z - 0.4), (0.1, 0.25, 0.45))
        femur = cut(join(cut(shaft, y + 0.08), np.minimum(*condyles)), -notch)
        patella = _ellipsoid((x, y + 0.3, z + 0.54), (0.2, 0.22, 0.1))
        return np.minimum(femur, patella), *shin(x, y, z, fibula_z=0.15)

    def _paint_ligaments(self, part: Slice, kind: str) -> None:
        if abs(self.z - 0.05) < (0.12 if kind == "cruciate" else 0.08):
            super()._paint_ligaments(part, kind)


def _ellipsoid(place: tuple[np.ndarray, np.ndarray, float], radii: tuple[float, float, float]) -> np.ndarray:
    (x, y, z), (width, height, depth) = place, radii
    return (np.sqrt((x / width) ** 2 + (y / height) ** 2 + (z / depth) ** 2) - 1) * min(radii)
