"""What virtual coils keep of the signal, what CG-SENSE loses by them, and what they save.

    python benchmarks/coil_compression.py [--repeats 3] [--data FOLDER] [--json FILE]

A generated knee of 640 x 372 with 15 coils, then fully sampled k-space from FOLDER (``*.npy``, (coils, rows, cols)):
the energy of the center that the virtual coils retain; the error of CG-SENSE from every fourth column and 24 in the
center, relative to the same of all coils (``loss``) and to the fully sampled image (``error``), of magnitudes in the
object; CPU seconds a slice of the compression, of ESPIRiT, and of 10 iterations of CG (least of the repeats).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.mri import cg_sense, coil_compression_matrix, compress_coils, estimate_sens_maps, sens_reduce
from fastmri_ufloss.mri.center import crop_center
from fastmri_ufloss.simulation.anatomy import draw_knee
from fastmri_ufloss.simulation.simulate import simulate_kspace

LINES = 24
SHAPE, NUM_COILS, NUM_SLICES = (640, 372), 15, 3
NUM_VIRTUAL_COILS = (12, 10, 8, 6, 4)


def simulate() -> Tensor:
    """K-space (slices, coils, rows, cols, 2) of a knee in the middle half of the rows, as with oversampling."""
    knee, _ = draw_knee((SHAPE[0] // 2, SHAPE[1]), num_slices=NUM_SLICES)
    images = np.pad(knee, ((0, 0), (SHAPE[0] // 4, SHAPE[0] // 4), (0, 0)))
    return torch.view_as_real(torch.from_numpy(simulate_kspace(images, num_coils=NUM_COILS, snr=30.0)))


def reconstruct(kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """CG-SENSE and the fully sampled image, magnitudes, with the CPU seconds of ESPIRiT and CG a slice."""
    masked, clock = kspace * mask, time.process_time
    start = clock()
    maps = estimate_sens_maps(masked, LINES)
    middle = clock()
    image = cg_sense(masked, mask, maps, lam=0.02, num_iterations=10)
    seconds = [(end - begin) / len(kspace) for begin, end in ((start, middle), (middle, clock()))]
    full = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    return image.abs(), full.abs(), seconds


def compare(kspace: Tensor, repeats: int) -> list[dict[str, float]]:
    coils, cols = kspace.shape[1], kspace.shape[3]
    kspace = kspace / kspace.abs().max()
    start = (cols - LINES + 1) // 2
    mask = torch.zeros(1, 1, 1, cols, 1)
    mask[..., ::4, :], mask[..., start : start + LINES, :] = 1, 1
    matrix, energies = coil_compression_matrix(crop_center(kspace, LINES))
    numbers = [coils, *(n for n in NUM_VIRTUAL_COILS if n < coils)]
    reconstruct(compress_coils(kspace, matrix[:2]), mask)  # what is set up at the first call
    images, full = dict[int, Tensor](), kspace
    seconds: dict[int, list[list[float]]] = {n: [] for n in numbers}
    for _ in range(repeats):
        for n in numbers:
            begin = time.process_time()
            data = kspace if n == coils else compress_coils(kspace, matrix[:n])
            elapsed = (time.process_time() - begin) / len(kspace)
            images[n], reference, times = reconstruct(data, mask)
            seconds[n].append([elapsed, *times])
            full = reference if n == coils else full
    whole = images[coils]
    inside = full > 0.1 * full.flatten().quantile(0.99)

    def error(image: Tensor, reference: Tensor) -> float:
        return float((image - reference)[inside].norm() / reference[inside].norm())

    rows = []
    for n in numbers:
        row = {"coils": n, "energy": float(energies[:n].sum())}
        row |= {"loss": error(images[n], whole), "error": error(images[n], full)}
        names = ("compression_seconds", "espirit_seconds", "cg_seconds")
        rows.append(row | dict(zip(names, map(min, zip(*seconds[n], strict=True)), strict=True)))
    return rows


def print_table(title: str, rows: list[dict[str, float]]) -> None:
    print(f"\n{title}\n{'coils':>6}{'energy':>9}{'loss':>9}{'error':>9}{'compress':>10}{'ESPIRiT':>9}{'CG':>8}")
    for row in rows:
        values = "".join(f"{row[name]:9.4f}" for name in ("energy", "loss", "error"))
        seconds = "".join(f"{value:8.3f}s" for name, value in row.items() if name.endswith("seconds"))
        print(f"{row['coils']:6.0f}{values} {seconds}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder of real multi-coil k-space as *.npy")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    results = {"simulated": compare(simulate(), arguments.repeats)}
    print_table(f"simulated, {' x '.join(map(str, SHAPE))}, {torch.get_num_threads()} threads", results["simulated"])
    for file in sorted(arguments.data.glob("*.npy")) if arguments.data else ():
        if file.name.startswith("noise"):
            continue  # a noise-only scan has no coil maps
        kspace = torch.view_as_real(torch.from_numpy(np.load(file).astype(np.complex64)))[None]
        results[file.stem] = compare(kspace, arguments.repeats)
        print_table(file.stem, results[file.stem])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
