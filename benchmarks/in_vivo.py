"""A fully sampled in-vivo brain scan, undersampled afterwards: classical methods and MoDL trained on other data.

    python benchmarks/in_vivo.py --data FOLDER --work FOLDER [--modl NAME=CHECKPOINT ...] [--json FILE]

FOLDER/multicoil/invivo_brain_16ch.npy, (16, 128, 128), is converted, and reconstructed from 2x and 4x random
columns and an 8x Poisson disk, by `modl_ufloss/reconstruct.py`. All methods get the same samples and the same maps,
from the fully sampled center of the undersampled data. One slice of one person, one mask of each kind: the figures
are of this scan, not of a population.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import RECIPES

from fastmri_ufloss.report import format_table

SAMPLINGS = {
    "2x random columns": ["--mask_type", "random", "--center_fractions", "0.16", "--accelerations", "2"],
    "4x random columns": ["--mask_type", "random", "--center_fractions", "0.125", "--accelerations", "4"],
    "8x Poisson disk": ["--mask_type", "poisson_2d", "--center_size", "24", "--accelerations", "8"],
}
CLASSICAL = ("zero_filled", "cg_sense", "pics_wavelet", "pics_tv")


def call(*command: object) -> None:
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{result.stderr[-3000:]}")


def reconstruct(volumes: Path, output: Path, options: list[str], methods: tuple[str, ...], *more: object) -> None:
    call(
        RECIPES / "reconstruct.py", "--data_path", volumes, "--output_path", output, "--num_workers", 0,
        "--accelerator", "cpu", *options, "--methods", *methods, *more,
    )  # fmt: skip


def rows_of(output: Path, sampling: str, rename: dict[str, str]) -> list[dict[str, Any]]:
    """Scores and residuals of a run of `reconstruct.py`."""
    scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))["volumes"]
    residuals = json.loads((output / "residuals.json").read_text(encoding="utf-8"))["residuals"]
    return [
        {
            "sampling": sampling,
            "method": rename.get(score["method"], score["method"]),
            "NRMSE (coil-combined)": score["NRMSE (coil-combined)"],
            "SSIM (coil-combined)": score["SSIM (coil-combined)"],
            "NRMSE (RSS)": score["NRMSE (RSS)"],
            "residual": residual["residual"],
        }
        for score, residual in zip(scores, residuals, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the volume and the reconstructions")
    parser.add_argument("--modl", nargs="*", default=[], metavar="NAME=CHECKPOINT", help="trained networks")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    networks = dict(item.split("=", 1) for item in args.modl)
    volumes = args.work / "volumes"
    source = args.data / "multicoil" / "invivo_brain_16ch.npy"
    call("-m", "fastmri_ufloss.convert", "numpy", source, "--output_path", volumes)
    rows = []
    for sampling, options in SAMPLINGS.items():
        output = args.work / sampling.replace(" ", "_")
        reconstruct(volumes, output, options, CLASSICAL)
        rows += rows_of(output, sampling, {})
        for name, checkpoint in networks.items():
            reconstruct(volumes, output / name, options, ("modl",), "--checkpoint", checkpoint)
            rows += rows_of(output / name, sampling, {"MoDL": f"MoDL, {name}"})
    print(format_table(rows))
    if args.json:
        args.json.write_text(json.dumps({"networks": list(networks), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
