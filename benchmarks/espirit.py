"""Coil maps by ESPIRiT: this package, BART and sigpy side by side, in time, memory and outcome.

    python benchmarks/espirit.py [--repeats 3] [--data FOLDER] [--json FILE]

A simulated slice, 640 x 368 with 15 coils, 24 center lines: median time (least - most) of interleaved
repeats, the largest memory beyond the imports (BART: its whole process), and the mean and least inner product
of the maps with this package's over the object. Then fully sampled k-space from FOLDER (``*.npy``, (coils,
rows, cols)): the same agreement, and the error of CG-SENSE from every fourth line and 24 in the center with
the maps of each program. Then what the defaults were chosen by: that error, and the part of the object without
maps, for few center lines and for several eigenvalue crops, this package's and BART's; and the error and the level
of CG-SENSE for several weights and numbers of iterations. BART runs as its own process and is left out where it is
not installed. OMP_NUM_THREADS limits all three. ``--repeats 0`` leaves the simulated slice out.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmri
import numpy as np
import sigpy.mri
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fastmri_ufloss.mri import cg_sense, estimate_sens_maps

LINES = 24
CROP = 0.8
CG = ((0.001, 8), (0.02, 10), (0.001, 5), (0.001, 30))  # weights and iterations, the defaults first
SHAPE = (15, 640, 368)

# a fresh interpreter, as a process starts with the largest memory of the one that it was forked from
CHILD_MEMORY = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)

Estimator = Callable[[np.ndarray], np.ndarray]


def simulate(shape: tuple[int, int, int] = SHAPE, noise: float = 0.005) -> np.ndarray:
    """k-space of a textured ellipse in a birdcage coil with white noise, complex64."""
    generator = np.random.default_rng(0)
    maps = sigpy.mri.birdcage_maps(shape, r=1.3)
    texture = gaussian_filter(generator.standard_normal(shape[1:]), 3)
    y, x = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    inside = (x / 0.7) ** 2 + (y / 0.55) ** 2 < 1
    image = inside * (1 + 0.3 * texture / texture.std()) * np.exp(1j * (2 * x + y * y))
    kspace = sigpy.fft(maps * image, axes=(-2, -1))
    white = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    return (kspace + noise * white).astype(np.complex64)


def as_batch(kspace: np.ndarray) -> Tensor:
    return torch.view_as_real(torch.from_numpy(kspace))[None].contiguous()


def ours(kspace: np.ndarray, device: str = "cpu", *, lines: int = LINES, crop: float = CROP) -> np.ndarray:
    maps = estimate_sens_maps(as_batch(kspace).to(device), lines, crop=crop)
    return torch.view_as_complex(maps)[0].cpu().numpy()


def sigpy_maps(kspace: np.ndarray) -> np.ndarray:
    app = sigpy.mri.app.EspiritCalib(kspace, calib_width=LINES, crop=CROP, show_pbar=False)
    return app.run()


def write_cfl(path: Path, kspace: np.ndarray) -> None:
    """k-space (coils, rows, cols) as BART's [x, y, z, coil], whose first dimension varies fastest."""
    coils, rows, cols = kspace.shape
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{rows} {cols} 1 {coils}\n")
    np.ascontiguousarray(kspace.transpose(0, 2, 1), dtype=np.complex64).tofile(path.with_suffix(".cfl"))


def bart_command(folder: Path, lines: int = LINES, crop: float = CROP) -> list[str]:
    size = f"{LINES}:{lines}:1"
    return ["bart", "ecalib", "-r", size, "-c", str(crop), "-m1", str(folder / "kspace"), str(folder / "maps")]


def bart_maps(kspace: np.ndarray, *, lines: int = LINES, crop: float = CROP) -> tuple[np.ndarray, float]:
    """The maps, and the seconds that the process took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "kspace", kspace)
        start = time.perf_counter()
        subprocess.run(bart_command(folder, lines, crop), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        coils, rows, cols = kspace.shape
        maps = np.fromfile(folder / "maps.cfl", dtype=np.complex64).reshape(coils, cols, rows)
    return maps.transpose(0, 2, 1), seconds


def timed(estimate: Estimator, kspace: np.ndarray) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return estimate(kspace), time.perf_counter() - start


def high_water() -> int:
    """The largest memory that this process has held, in kB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def print_memory(method: str) -> None:
    """Print the MB that a method needs beyond the imports and its input; for a process of its own."""
    kspace = simulate()
    # a first call of a small problem loads the libraries, which are no part of it
    (ours if method == "ours" else sigpy_maps)(kspace[:2, ::8, ::8])
    status = Path("/proc/self/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    # the simulation took memory and gave it back: fill it up to where any more shows
    ballast = np.ones((high_water() - used) * 1024, dtype=np.uint8)
    before = high_water()
    (ours if method == "ours" else sigpy_maps)(kspace)
    print((high_water() - before) / 1024)
    del ballast


def memory(method: str) -> float:
    if method == "bart":
        with tempfile.TemporaryDirectory() as name:
            write_cfl(Path(name) / "kspace", simulate())
            command = [sys.executable, "-c", CHILD_MEMORY, *bart_command(Path(name))]
            return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
    command = [sys.executable, __file__, "--print-memory", method]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def root_sum_of_squares(kspace: np.ndarray) -> np.ndarray:
    return fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(as_batch(kspace))), dim=1)[0].numpy()


def object_of(kspace: np.ndarray) -> np.ndarray:
    image = root_sum_of_squares(kspace)
    return image > 0.1 * np.quantile(image, 0.99)


def agreement(maps: np.ndarray, reference: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """The inner product over the coils, which leaves out the phase, where both have maps in the object."""
    norms = np.linalg.norm(maps, axis=0) * np.linalg.norm(reference, axis=0)
    both = inside & (norms > 0)
    product = np.abs((maps.conj() * reference).sum(axis=0))[both] / norms[both]
    kept = np.abs(maps).sum(axis=0)[inside] > 0
    theirs = np.abs(reference).sum(axis=0)[inside] > 0
    return {
        "mean": float(product.mean()),
        "least": float(product.min()),
        "cropped_differently": float((kept != theirs).mean()),
    }


def sense_error(
    kspace: np.ndarray, maps: np.ndarray, inside: np.ndarray, *, lines: int = LINES, every: int = 4, **settings: Any
) -> tuple[float, float]:
    """NRMSE and level of CG-SENSE from every n-th line, relative to the fully sampled image, in the object."""
    cols = kspace.shape[2]
    mask = torch.zeros(1, 1, 1, cols, 1)
    mask[..., ::every, :] = 1
    start = (cols - lines + 1) // 2
    mask[..., start : start + lines, :] = 1
    kspace = kspace / np.abs(kspace).max()
    maps = as_batch(maps.astype(np.complex64))
    result = cg_sense(as_batch(kspace) * mask, mask, maps, **settings)[0].abs().numpy()[inside]
    image = root_sum_of_squares(kspace)[inside]
    error = np.linalg.norm(result - image) / np.linalg.norm(image)
    return float(error), float((result * image).sum() / (image**2).sum())


def compare_speed(repeats: int, with_bart: bool) -> dict[str, dict[str, float]]:
    methods = ["ours", *(["bart"] if with_bart else []), "sigpy"]
    # before this process is large
    results: dict[str, dict[str, float]] = {name: {"memory_mb": memory(name)} for name in methods}
    if torch.cuda.is_available():
        results["ours, cuda"] = {}
    kspace = simulate()
    estimators: dict[str, Callable[[], tuple[np.ndarray, float]]] = {
        "ours": lambda: timed(ours, kspace),
        "bart": lambda: bart_maps(kspace),
        "sigpy": lambda: timed(sigpy_maps, kspace),
        "ours, cuda": lambda: timed(lambda k: ours(k, "cuda"), kspace),
    }
    maps: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in results}
    ours(kspace)  # what is set up at the first call
    for _ in range(repeats):
        for name in results:
            maps[name], elapsed = estimators[name]()
            seconds[name].append(elapsed)
    for name, result in results.items():
        result |= {"seconds": statistics.median(seconds[name])}
        result |= {"least_seconds": min(seconds[name]), "most_seconds": max(seconds[name])}
        result |= agreement(maps["ours"], maps[name], object_of(kspace))
    return results


def compare_outcome(file: Path, with_bart: bool) -> dict[str, dict[str, float]]:
    kspace = np.load(file).astype(np.complex64)
    inside = object_of(kspace)
    maps = {"ours": ours(kspace)}
    if with_bart:
        maps["bart"] = bart_maps(kspace)[0]
    maps["sigpy"] = sigpy_maps(kspace)
    return {
        name: agreement(maps["ours"], m, inside) | {"sense_nrmse": sense_error(kspace, m, inside)[0]}
        for name, m in maps.items()
    }


def compare_settings(file: Path, with_bart: bool) -> dict[str, dict[str, float]]:
    """By setting, what came out of it; prints a line of each."""
    kspace = np.load(file).astype(np.complex64)
    inside, results = object_of(kspace), {}
    programs: dict[str, Callable[..., np.ndarray]] = {"ours": ours}
    if with_bart:
        programs["bart"] = lambda *data, **settings: bart_maps(*data, **settings)[0]
    for lines, crop in ((24, 0.8), (24, 0.9), (24, 0.95), (12, 0.8), (8, 0.8), (6, 0.8)):
        for name, estimate in programs.items():
            maps = estimate(kspace, lines=lines, crop=crop)
            error, _ = sense_error(kspace, maps, inside, lines=lines)
            lost = float((np.abs(maps).sum(axis=0)[inside] == 0).mean())
            results[f"{name}, {lines} lines, crop {crop}"] = {"sense_nrmse": error, "object_without_maps": lost}
    maps = ours(kspace)
    for every in (2, 4):
        for lam, iterations in CG:
            error, level = sense_error(kspace, maps, inside, every=every, lam=lam, num_iterations=iterations)
            results[f"CG-SENSE {every}x, lam {lam}, {iterations}"] = {"sense_nrmse": error, "level": level}
    for name, r in results.items():
        last = f"level {r['level']:.3f}" if "level" in r else f"{100 * r['object_without_maps']:.2f}% without maps"
        print(f"  {name:28}{r['sense_nrmse']:8.4f}  {last}")
    return results


def print_table(title: str, results: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':12}{'agreement':>10}{'least':>8}{'other crop':>12}", end="")
    print(f"{'CG-SENSE NRMSE':>16}" if "sense_nrmse" in results["ours"] else f"{'seconds':>28}{'MB':>7}")
    for name, r in results.items():
        print(f"{name:12}{r['mean']:10.5f}{r['least']:8.3f}{100 * r['cropped_differently']:11.2f}%", end="")
        if "sense_nrmse" in r:
            print(f"{r['sense_nrmse']:16.4f}")
        else:
            spread = f"{r['seconds']:.3f} ({r['least_seconds']:.3f} - {r['most_seconds']:.3f})"
            print(f"{spread:>28}{r['memory_mb']:7.0f}" if "memory_mb" in r else f"{spread:>28}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder of real multi-coil k-space as *.npy")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--print-memory", choices=["ours", "sigpy"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.print_memory:
        print_memory(arguments.print_memory)
        return
    with_bart = shutil.which("bart") is not None
    if not with_bart:
        print("BART is not installed, and is left out")
    results = {}
    if arguments.repeats > 0:
        results["simulated"] = compare_speed(arguments.repeats, with_bart)
        title = f"simulated, {' x '.join(map(str, SHAPE))}, {torch.get_num_threads()} threads"
        print_table(title, results["simulated"])
    for file in sorted(arguments.data.glob("*.npy")) if arguments.data else ():
        if file.name.startswith("noise"):
            continue  # a noise-only scan has no coil maps
        results[file.stem] = compare_outcome(file, with_bart)
        print_table(f"{file.stem}, CG-SENSE from every 4th line", results[file.stem])
        results[file.stem] |= compare_settings(file, with_bart)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
