"""Peak memory of converting and of reconstructing a 3D scan, for few and for many slices.

    python benchmarks/memory.py --work FOLDER [--slices 40 400] [--json FILE]

A raw ISMRMRD file (8 coils, 160 x 128) of so many readout positions is converted with `--max_memory 100`, then
reconstructed and scored by `reconstruct.py` (zero-filled and CG-SENSE, 8x Poisson disk). The figure is the largest
resident size of the process; the imports alone are given as well.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from runs import RECIPES

from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.mrd_file import write_mrd

COILS, ROWS, COLS = 8, 160, 128


def peak_memory(*command: object) -> float:
    """MB of the process at its largest, as Linux counts; looked up while the process runs."""
    line = [sys.executable, *map(str, command)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(line, stdout=log, stderr=log) as process:
        peak = 0
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                # not that of getrusage, which begins with the size of this process
                peak = max(peak, int(next(row for row in status.splitlines() if row.startswith("VmHWM")).split()[1]))
            time.sleep(0.02)
        if process.returncode:
            log.seek(0)
            sys.exit(f"error: {line} failed:\n{log.read().decode()[-3000:]}")
    return peak / 1e3


def make_scan(path: Path, slices: int) -> None:
    """Smooth noise in the image, whose content does not matter here."""
    if path.is_file():
        return
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLS * 1j]
    envelope = np.exp(-40 * (x**2 + y**2)) + 1e-3

    def coils() -> Any:
        rng = np.random.default_rng(0)
        for _ in range(COILS):
            noise = rng.standard_normal((slices, ROWS, COLS, 2), dtype=np.float32).view(np.complex64)[..., 0]
            yield noise * envelope

    write_mrd(path, coils())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--slices", type=int, nargs="+", default=[40, 400])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for slices in args.slices:
        raw, folder = args.work / f"raw{slices}.h5", args.work / f"volumes{slices}"
        make_scan(raw, slices)
        convert = peak_memory(
            "-m", "fastmri_ufloss.convert", "ismrmrd", raw, "--output_path", folder, "--max_memory", 100,
            "--overwrite",
        )  # fmt: skip
        reconstruct = peak_memory(
            RECIPES / "reconstruct.py", "--data_path", folder, "--output_path", args.work / f"out{slices}",
            "--methods", "zero_filled", "cg_sense", "--mask_type", "poisson_2d", "--center_size", 24,
            "--accelerations", 8, "--num_workers", 0, "--accelerator", "cpu",
        )  # fmt: skip
        size = next(folder.glob("*.h5")).stat().st_size / 1e6
        rows.append({"slices": slices, "volume, MB": size, "convert, MB": convert, "reconstruct, MB": reconstruct})
    imports = peak_memory("-c", "import fastmri_ufloss.pl_modules, ismrmrd")
    print(format_table(rows))
    print(f"imports alone: {imports:.0f} MB")
    if args.json:
        args.json.write_text(json.dumps({"imports, MB": imports, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
