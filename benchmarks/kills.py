"""Commands that are killed at random moments and typed again, against the same commands that were left alone.

    python benchmarks/kills.py --work FOLDER [--kills 120] [--full_disk] [--seed 0] [--only NAME ...] [--json FILE]

Every command runs once undisturbed on small generated knees. Then the same command, in a folder of its own, is
killed by SIGKILL, SIGTERM and SIGINT in turn, each time at a random moment after it wrote its first file,
and at last runs to its end. All files of both folders are compared: checkpoints and HDF5 by their values, the others
by their bytes; logs of TensorBoard are left out. Temporary files are counted after the kills and at the end.

With --full_disk the command is stopped by its files instead: no file may have more than a random number of bytes,
from 16 to those of its largest. It must end with a line that begins with error.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from runs import RECIPES

from fastmri_ufloss.files import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.demo import make_demo_dataset

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS = 300.0  # the longest that a command may take, or take to end after a signal
CHECKPOINT = ("state_dict", "optimizer_states", "lr_schedulers", "adversarial", "hyper_parameters", "global_step")


def commands(work: Path) -> dict[str, list[object]]:
    """What is killed, in an order in which each has the inputs that it needs."""
    example = RECIPES.parent
    mask = ["--center_fractions", 0.2, "--accelerations", 3]
    data = ["--data_path", work / "data", "--accelerator", "cpu", "--checkpoint_every_n_steps", 1]
    train = [*data, *mask, "--max_epochs", 3, "--batch_size", 2, "--num_workers", 0]
    one, refine = [*train, "--challenge", "singlecoil"], example / "adversarial_refinement"
    gan = ["--discriminator_chans", 2, "--num_strided", 3, "--perceptual", "none", "--replay_size", 3, "--no-score"]
    recon = ["--recon", work / "RecNet" / "whole" / "runs" / "recnet" / "checkpoints" / "last.ckpt"]
    modl = work / "MoDL" / "whole" / "runs" / "modl_ufloss"
    tiny = ["--chans", 2, "--num_layers", 2, "--num_unrolls", 1]
    patches = ["--patch_size", 40, "--patches_per_slice", 4, "--architecture", "narrow", "--width", 4]
    varnet = ["--num_cascades", 1, "--chans", 2, "--pools", 1, "--sens_chans", 2, "--sens_pools", 1]
    report = [*(f"{name}={modl / 'stages' / name}" for name in ("zero_filled", "cg_sense")), "--output_path", "out"]
    return {
        "MoDL": [RECIPES / "train.py", *train, *tiny, "--loss", "l2=1", "ufloss=auto", "--patch_size", 40],
        "MoDL, 2 workers": [
            *(RECIPES / "train.py", *train[:-1], 2, *tiny, "--loss", "l2", "--no-score"),
            *("--accumulate_grad_batches", 2, "--max_epochs", -1, "--max_steps", 7),
        ],
        "VarNet": [example / "varnet" / "train.py", *train, *varnet, "--loss", "l1"],
        "U-Net": [example / "unet" / "train.py", *one, "--chans", 2, "--num_pool_layers", 2],
        "RecNet": [refine / "train_recnet.py", *one, "--chans", 2, "--num_blocks", 1],
        "refinement": [refine / "train_refinement.py", *one, *gan, *recon, "--refinement_chans", 2],
        "joint": [refine / "train_refinement.py", *one, *gan, *recon, "--joint", "--accumulate_grad_batches", 2],
        "segmentation": [
            *(refine / "train_segmentation.py", *data, "--challenge", "singlecoil", "--max_epochs", 3),
            *("--batch_size", 2, "--num_workers", 0, "--chans", 2, "--num_levels", 2),
        ],
        "dssim": [
            example / "unet_dssim" / "train.py",
            *one,
            "--chans",
            2,
            "--num_pool_layers",
            1,
            "--lr_step_size",
            9,
        ],
        "pretraining": [RECIPES / "pretrain.py", *train, *patches],
        "CG-SENSE, map cache": [
            *(RECIPES / "reconstruct.py", "--data_path", work / "data" / "multicoil_train", "--output_path", "out"),
            *("--methods", "zero_filled", "cg_sense", "--mask_type", "random", *mask, "--num_workers", 0),
        ],
        "conversion": ["-m", "fastmri_ufloss.convert", "numpy", work / "arrays", "--output_path", "out"],
        "report": ["-m", "fastmri_ufloss.report", *report, "--reference", modl / "stages" / "reference"],
        "export": ["-m", "fastmri_ufloss.export", modl, "--output_path", "out"],
    }


def make_data(work: Path) -> None:
    """Small knees of one and of several coils, and arrays to convert."""
    for challenge in ("multicoil", "singlecoil"):
        make_demo_dataset(
            work / "data", challenge=challenge, num_subjects=(3, 1, 2), slices_per_subject=2, shape=(48, 48)
        )  # fmt: skip
    (work / "arrays").mkdir(exist_ok=True)
    for number in range(12):
        images = np.random.default_rng(number).random((12, 128, 128), dtype=np.float32)
        np.save(work / "arrays" / f"{number:02d}.npy", images)


class Command:
    """A command line that runs in a folder, with its log and its temporary files beside that."""

    def __init__(self, line: list[object]) -> None:
        self.line = [sys.executable, *map(str, line)]

    def environment(self, folder: Path) -> dict[str, str]:
        scratch = folder.with_name(f"{folder.name}_tmp")
        scratch.mkdir(exist_ok=True)
        return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(scratch)}

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.log"), "ab") as log:
            return subprocess.Popen(self.line, cwd=folder, env=self.environment(folder), stdout=log, stderr=log)

    def run(self, folder: Path) -> tuple[float, float]:
        """Run to the end; the seconds until the first file is there and until the end."""
        begin, first = time.monotonic(), None
        process = self.start(folder)
        while process.poll() is None and time.monotonic() - begin < SECONDS:
            if first is None and any(folder.iterdir()):
                first = time.monotonic() - begin
            time.sleep(0.02)
        process.kill()
        end = time.monotonic() - begin
        if process.wait() != 0:
            log = folder.with_name(f"{folder.name}.log").read_text(errors="replace")
            raise RuntimeError(f"{self.line} ended with {process.returncode} in {folder}:\n{log[-2000:]}")
        return end if first is None else first, end

    def fill(self, folder: Path, size: int) -> bool:
        """Run with files of at most so many bytes; whether that was too little, RuntimeError if it is not said so."""
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self.line, cwd=folder, env=self.environment(folder), preexec_fn=limit, capture_output=True
        )
        text = done.stderr.decode(errors="replace")
        if done.returncode and not any(line.startswith("error: ") for line in text.splitlines()):
            raise RuntimeError(f"{self.line} with files of {size} bytes:\n{text[-2000:]}")
        return done.returncode != 0

    def kill(self, folder: Path, number: signal.Signals, seconds: float) -> bool:
        """Run, and send a signal after some seconds; whether the command was still running."""
        process = self.start(folder)
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.wait(SECONDS)
            return True


def leftovers(folder: Path) -> int:
    """The number of temporary files of a command in ``folder``."""
    scratch = folder.with_name(f"{folder.name}_tmp")
    return len([*folder.rglob("*.tmp"), *(path for path in scratch.rglob("*") if path.is_file())])


def differences(whole: Path, other: Path) -> Iterator[str]:
    """The files that are not the same in two folders."""
    files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (whole, other)]
    for path in sorted(files[0] | files[1]):
        if "tensorboard" in path.parts or path.suffix == ".tmp":
            continue
        if path not in files[0] or path not in files[1]:
            yield f"{path} is {'missing' if path in files[0] else 'new'}"
        elif not same_values(read(whole / path), read(other / path)):
            yield f"{path} differs"


def read(path: Path) -> Any:
    if path.suffix == ".ckpt":
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: content.get(name) for name in CHECKPOINT}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {name: value[()] for name, value in file.items()} | dict(file.attrs)
    return path.read_bytes()


def same_values(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_values(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_values, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)


def measure(
    name: str, line: list[object], work: Path, *, kills: int, rng: random.Random, full_disk: bool
) -> dict[str, Any]:
    """Kill a command so many times, three times in each folder."""
    command, root = Command(line), work / name
    shutil.rmtree(root, ignore_errors=True)
    first, end = command.run(root / "whole")
    row: dict[str, Any] = {"command": name, "seconds": round(end, 1), "kills": 0}
    largest = max(path.stat().st_size for path in (root / "whole").rglob("*") if path.is_file())
    row |= {"runs": 0, "equal": 0, "left by kills": 0, "left at the end": 0, "differences": []}
    while row["kills"] < kills:
        folder = root / f"killed {row['runs']}"
        found = []
        for number in rng.sample(SIGNALS, len(SIGNALS)):
            if not full_disk:
                row["kills"] += command.kill(folder, number, rng.uniform(0.9 * first, end))
                continue
            try:
                row["kills"] += command.fill(folder, round(16 * (largest / 16) ** rng.random()))
            except RuntimeError as error:
                found.append(str(error))
                row["kills"] += 1
        row["left by kills"] += leftovers(folder)
        row["runs"] += 1
        try:
            command.run(folder)
            found += differences(root / "whole", folder)
        except RuntimeError as error:
            found.append(str(error))
        row["left at the end"] += leftovers(folder)
        row["equal"] += not found
        row["differences"] += found
        print(f"{name}: killed {row['kills']} times, {row['equal']} of {row['runs']} equal", *found, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=120, help="of all commands together, at least")
    parser.add_argument("--full_disk", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the commands")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    work = args.work.resolve()
    make_data(work)
    lines = {name: line for name, line in commands(work).items() if args.only is None or name in args.only}
    rng = random.Random(args.seed)
    kills = -(-args.kills // len(lines))
    rows = [measure(name, line, work, kills=kills, rng=rng, full_disk=args.full_disk) for name, line in lines.items()]
    print(format_table([{name: value for name, value in row.items() if name != "differences"} for row in rows]))
    if args.json is not None:
        write_json(args.json, {"seed": args.seed, "commands": rows})


if __name__ == "__main__":
    main()
