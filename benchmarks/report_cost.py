"""Time and memory of a report over few and over many volumes.

    python benchmarks/report_cost.py --work FOLDER [--volumes 6 200] [--json FILE]

Every volume has 16 slices of 256 x 256 of generated knees; noise and blur make five methods of each. The
report scores them with all that needs no network, tests by subject, and makes its page and pictures. Time is that of
the whole command; memory is the largest resident size of the process that the user starts and of the largest of its
workers, as Linux counts. A second call of the same command shows what a report costs whose scores are there.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

from fastmri_ufloss.files import atomic_path, write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.demo import make_demo_dataset

SLICES, SIZE = 16, 256
NOISE_AND_BLUR = {
    "noise": (0.03, 0.0),
    "more noise": (0.06, 0.0),
    "blur": (0.0, 0.7),
    "more blur": (0.0, 1.2),
    "both": (0.03, 0.7),
}


def templates(folder: Path) -> np.ndarray:
    """Slices of the demo's knees, as large as asked for, with a maximum of 1."""
    make_demo_dataset(folder, challenge="multicoil")
    images = []
    for path in sorted((folder / "multicoil_train").glob("*.h5")):
        with h5py.File(path) as file:
            images += list(file["reconstruction_rss"][()])
    pads = [(0, max(SIZE - size, 0)) for size in images[0].shape]
    padded = np.stack([np.pad(image, pads, mode="reflect") for image in images])
    return padded[:, :SIZE, :SIZE].astype(np.float32) / np.max(images)


def make_volumes(root: Path, count: int, images: np.ndarray) -> None:
    """References and methods as leaderboard files, each volume with its own slices and noise."""
    for number in range(count):
        name = f"volume_{number:04d}.h5"
        rng = np.random.default_rng(number)
        reference = images[rng.integers(len(images), size=SLICES)]
        write(root / "reference" / name, reference, patient_id=f"subject_{number:04d}")
        for method, (noise, sigma) in NOISE_AND_BLUR.items():
            output = gaussian_filter(reference, (0, sigma, sigma)) if sigma else reference
            output = np.abs(output + noise * rng.standard_normal(output.shape, dtype=np.float32))
            write(root / method / name, output)


def write(path: Path, images: np.ndarray, **attributes: str) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("reconstruction", data=images, chunks=(1, *images.shape[1:]))
        file.attrs.update({"acquisition": "CORPD_FBK", **attributes})


def measure(root: Path, output: Path, num_workers: int) -> dict[str, Any]:
    """Seconds of the command, and MB of its processes at their largest."""
    line: list[object] = [sys.executable, "-m", "fastmri_ufloss.report"]
    line += [f"{method}={root / method}" for method in NOISE_AND_BLUR]
    line += ["--reference", root / "reference", "--output_path", output, "--num_workers", num_workers]
    start = time.perf_counter()
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile() as log, subprocess.Popen([*map(str, line)], stdout=log, stderr=log) as process:
        watch = threading.Thread(target=watch_memory, args=(process, peaks))
        watch.start()
        code = process.wait()
        watch.join()
        if code:
            log.seek(0)
            sys.exit(f"error: {line} failed:\n{log.read().decode()[-3000:]}")
    peak = peaks.pop(process.pid)
    return {
        "s": time.perf_counter() - start,
        "MB": peak / 1e3,
        "MB of the largest worker": max(peaks.values(), default=0) / 1e3,
    }


def watch_memory(process: "subprocess.Popen[bytes]", peaks: dict[int, int]) -> None:
    """Note the peak of the process and of its children while it runs."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in (process.pid, *map(int, children)):
                with contextlib.suppress(OSError, StopIteration):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
                    peaks[pid] = max(peaks.get(pid, 0), peak)
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--volumes", type=int, nargs="+", default=[6, 200])
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images = templates(args.work / "demo_data")
    rows = []
    for count in args.volumes:
        root, output = args.work / f"volumes_{count}", args.work / f"report_{count}"
        make_volumes(root, count, images)
        shutil.rmtree(output, ignore_errors=True)
        for call in ("first", "again"):
            cost = measure(root, output, args.num_workers)
            size = (output / "report.html").stat().st_size / 1e6
            rows.append(
                {
                    "volumes": count,
                    "images": count * SLICES * len(NOISE_AND_BLUR),
                    "call": call,
                    **cost,
                    "page, MB": size,
                }
            )
            print(format_table(rows[-1:]), flush=True)
    print(format_table(rows))
    if args.json:
        write_json(args.json, {"num_workers": args.num_workers, "rows": rows})


if __name__ == "__main__":
    main()
