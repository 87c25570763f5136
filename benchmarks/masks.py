"""Sampling masks: obtained acceleration and time of every mask type, and of sigpy's Poisson discs.

    python benchmarks/masks.py [--seeds 5] [--json FILE] [--picture FILE]

For each mask type, shape and acceleration asked: the acceleration obtained (all points over the samples), mean and
worst over the seeds, and the median CPU time of a mask. Printed is the worst over the shapes; the JSON has them all.
Then how evenly the Poisson discs fill the plane, in units of the local spacing (one over the root of the density,
which is the mean over many masks): distance of a sample from the next one, and the radius of the largest hole;
random points of the same density beside. The picture shows a mask of each type and its point spread function.
The center is 8 % of the columns up to 5x, 4 % beyond. sigpy.mri.poisson has no cropped corners; its first call, which
compiles, is left out.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sigpy.mri
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from fastmri_ufloss.data.masks import MASK_TYPES, create_mask_for_mask_type

SHAPES = ((640, 372), (320, 320), (320, 256), (230, 180), (128, 128))
ACCELERATIONS = (2, 3, 4, 5, 8, 10, 12)
SIGPY = "sigpy poisson"
SIGPY_SEEDS = 1  # a mask takes it up to two seconds
EVENNESS_SHAPE, EVENNESS_CENTER = (320, 320), 24
PICTURE_SHAPE, PICTURE_CENTER, PICTURE_ACCELERATION, PICTURE_FLOOR = (192, 192), 0.0625, 8, -50

Sampler = Callable[[int], np.ndarray]


def center_fraction(acceleration: int) -> float:
    return 0.08 if acceleration <= 5 else 0.04


def sampler(mask_type: str, shape: tuple[int, int], acceleration: int, fraction: float) -> Sampler:
    """From a seed to a mask, bool (1 or rows, cols)."""
    if mask_type == SIGPY:
        side = round(fraction * shape[1])
        return lambda seed: (
            np.abs(sigpy.mri.poisson(shape, acceleration, calib=(side, side), crop_corner=False, seed=seed)) > 0
        )
    mask_func = create_mask_for_mask_type(mask_type, [fraction], [acceleration])
    return lambda seed: mask_func((*shape, 2), seed=seed)[0][..., 0].numpy() > 0


def measure(mask_type: str, shape: tuple[int, int], acceleration: int, seeds: int) -> dict[str, object]:
    obtained, seconds = [], []
    result: dict[str, object] = {"mask_type": mask_type, "shape": shape, "asked": acceleration}
    for seed in range(SIGPY_SEEDS if mask_type == SIGPY else seeds):
        start = time.process_time()
        try:
            mask = sampler(mask_type, shape, acceleration, center_fraction(acceleration))(seed)
        except ValueError as error:
            seconds.append(time.process_time() - start)
            return result | {"failure": str(error), "ms": 1e3 * statistics.median(seconds)}
        seconds.append(time.process_time() - start)
        obtained.append(mask.size / mask.sum())
    worst = max(obtained, key=lambda value: abs(value - acceleration))
    return result | {
        "mean": statistics.mean(obtained),
        "worst": worst,
        "deviation_percent": 100 * (worst / acceleration - 1),
        "ms": 1e3 * statistics.median(seconds),
    }


def evenness(masks: list[np.ndarray], side: int) -> dict[str, float]:
    """Means over the masks, where the spacing is 1.7 steps of the grid or more, off the borders and corners."""
    spacing = 1 / np.sqrt(np.maximum(gaussian_filter(np.mean(masks, axis=0), 2), 1e-4))
    axes = [(np.arange(size) - size // 2) / (size / 2) for size in masks[0].shape]
    where = (np.hypot(axes[0][:, None], axes[1]) < 0.9) & (spacing > 1.7)
    start, stop = ((s - side + 1) // 2 for s in masks[0].shape), ((s + side + 1) // 2 for s in masks[0].shape)
    where[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = False
    rows = []
    for mask in masks:
        places = np.argwhere(mask)
        nearest = (cKDTree(places).query(places, k=2)[0][:, 1] / spacing[mask])[where[mask]]
        hole = (distance_transform_edt(~mask) / spacing)[where].max()
        rows.append([nearest.mean(), np.quantile(nearest, 0.01), nearest.min(), hole])
    return dict(
        zip(("nearest_mean", "nearest_1_percent", "nearest_least", "hole"), np.mean(rows, axis=0), strict=True)
    )


def compare_evenness(acceleration: int, num_masks: int = 8) -> dict[str, dict[str, float]]:
    fraction = EVENNESS_CENTER / EVENNESS_SHAPE[1]
    masks = {}
    for name in ("poisson_2d", SIGPY):
        draw = sampler(name, EVENNESS_SHAPE, acceleration, fraction)
        try:
            masks[name] = [draw(seed) for seed in range(num_masks)]
        except ValueError as error:
            print(f"{name}, {acceleration}x: {error}")
    density = np.mean(masks["poisson_2d"], axis=0)
    density = np.where(density == 1, 1, gaussian_filter(density, 2))
    generator = np.random.default_rng(0)
    masks["random points"] = [generator.random(density.shape) < density for _ in range(num_masks)]
    return {name: evenness(some, EVENNESS_CENTER) for name, some in masks.items()}


def print_accelerations(results: list[dict[str, object]]) -> None:
    print(f"\nobtained acceleration, worst over shapes and seeds (deviation)\n{'':22}", end="")
    print("".join(f"{f'{acceleration}x':>17}" for acceleration in ACCELERATIONS))
    for mask_type in (*MASK_TYPES, SIGPY):
        print(f"{mask_type:22}", end="")
        for acceleration in ACCELERATIONS:
            cell = [r for r in results if r["mask_type"] == mask_type and r["asked"] == acceleration]
            failures = sum("failure" in r for r in cell)
            worst = max((r for r in cell if "worst" in r), key=lambda r: abs(r["deviation_percent"]), default=None)
            text = f"{worst['worst']:.2f} ({worst['deviation_percent']:+.1f}%)" if worst else ""
            print(f"{text + f' {failures}x failed' * (failures > 0):>17}", end="")
        print()
    print(f"\nms of CPU time for a mask, median over seeds, least - most over accelerations\n{'':22}", end="")
    print("".join(f"{f'{rows} x {cols}':>17}" for rows, cols in SHAPES))
    for mask_type in (*MASK_TYPES, SIGPY):
        print(f"{mask_type:22}", end="")
        for shape in SHAPES:
            times = [r["ms"] for r in results if r["mask_type"] == mask_type and r["shape"] == shape]
            digits = 0 if max(times) > 10 else 1
            print(f"{f'{min(times):.{digits}f} - {max(times):.{digits}f}':>17}", end="")
        print()


def print_evenness(results: dict[int, dict[str, dict[str, float]]]) -> None:
    print(f"\nevenness, {' x '.join(map(str, EVENNESS_SHAPE))}, in units of the local spacing")
    print(f"{'':22}{'next: mean':>12}{'1 %':>8}{'least':>8}{'largest hole':>14}")
    for acceleration, methods in results.items():
        for name, r in methods.items():
            print(f"{f'{name}, {acceleration}x':22}{r['nearest_mean']:12.2f}{r['nearest_1_percent']:8.2f}", end="")
            print(f"{r['nearest_least']:8.2f}{r['hole']:14.2f}")


def point_spread(mask: np.ndarray) -> np.ndarray:
    """Magnitude of the mask's inverse Fourier transform, in dB of its peak, centered."""
    spread = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(mask))))
    return 20 * np.log10(np.maximum(spread / spread.max(), 1e-6))


def draw_point_spread(axis: Axes, mask: np.ndarray) -> AxesImage | None:
    """The image; for a mask of columns, which spreads along a single line, the curve along that line."""
    spread = point_spread(np.broadcast_to(mask, PICTURE_SHAPE))
    if mask.shape[0] > 1:
        return axis.imshow(spread, cmap="magma", vmin=PICTURE_FLOOR, vmax=0)
    line = spread[spread.shape[0] // 2]
    axis.fill_between(np.arange(line.size), line, PICTURE_FLOOR, color="#b63679", linewidth=0)
    axis.set_facecolor("black")
    axis.set_box_aspect(1)
    axis.set_xlim(0, line.size - 1)
    axis.set_ylim(PICTURE_FLOOR, 0)
    return None


def save_picture(path: Path) -> None:
    """A mask of each type above its point spread function."""
    names = (*MASK_TYPES, SIGPY)
    figure = Figure(figsize=(2.15 * len(names), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(names))
    for name, (upper, lower) in zip(names, axes.T, strict=True):
        mask = sampler(name, PICTURE_SHAPE, PICTURE_ACCELERATION, PICTURE_CENTER)(1)
        upper.imshow(np.broadcast_to(mask, PICTURE_SHAPE), cmap="gray", interpolation="nearest")
        upper.set_title(f"{name}\n{mask.size / mask.sum():.2f}x", fontsize=12)
        image = draw_point_spread(lower, mask)
        for axis in (upper, lower):
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].set_ylabel(f"mask, {PICTURE_ACCELERATION}x asked", fontsize=12)
    axes[1, 0].set_ylabel("point spread function, dB", fontsize=12)
    axes[1, 0].set_yticks(range(PICTURE_FLOOR, 1, 10))
    bar = figure.colorbar(image, ax=axes[1], pad=0.01)
    bar.set_label("dB of the peak", fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="jpg", dpi=110, pil_kwargs={"quality": 85})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--picture", type=Path, help="JPEG file to draw masks and point spread functions to")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="sigpy")
    sampler(SIGPY, (64, 64), 4, 0.08)(0)  # compiles
    results = [
        measure(mask_type, shape, acceleration, arguments.seeds)
        for mask_type in (*MASK_TYPES, SIGPY)
        for shape in SHAPES
        for acceleration in ACCELERATIONS
    ]
    print_accelerations(results)
    even = {acceleration: compare_evenness(acceleration) for acceleration in (4, 8)}
    print_evenness(even)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n  ".join(json.dumps(result) for result in results)
        arguments.json.write_text(f'{{"accelerations": [\n  {lines}\n],\n"evenness": {json.dumps(even)}}}\n')
    if arguments.picture:
        save_picture(arguments.picture)


if __name__ == "__main__":
    main()
