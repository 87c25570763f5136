"""Memory and open files while samples and training steps go by: they must stay as they are after the first of them.

    python benchmarks/long_run.py --work FOLDER [--samples 20000] [--steps 2000] [--json FILE]

The loader of MoDL's recipe, with two workers, gives so many samples of generated knees; then MoDL trains for so many
steps with l2 and UFLoss, with its checkpoints and log. Resident memory, of this process and its workers (what they
share counts for each), and open files are given after each fifth. Needs psutil.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import pretrained_feature_net
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, SeededSteps
from fastmri_ufloss.pl_modules.base_module import AtomicCheckpointIO, LastCheckpoint
from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.demo import make_demo_dataset

PARTS = 5


def make_data(work: Path, *, num_workers: int) -> MriDataModule:
    make_demo_dataset(work / "data", num_subjects=(8, 1, 1), slices_per_subject=8, shape=(64, 64), num_coils=4)
    mask = create_mask_for_mask_type("random", [0.2], [4])
    maps = SensMapCache(work / "sens_maps")
    transforms = [MoDLDataTransform(mask, use_seed=seed, sens_maps=maps) for seed in (False, True, True)]
    options = {"cache_dir": work / "cache", "mask_func": mask, "num_workers": num_workers}
    return MriDataModule(work / "data", "multicoil", *transforms, batch_size=1, **options)


def usage(what: str, done: int) -> dict[str, Any]:
    """MB and open files, now."""
    process = psutil.Process()
    workers = process.children()
    resident = sum(each.memory_info().rss for each in workers)
    row = {"what": what, "done": done, "MB": process.memory_info().rss / 1e6, "MB of workers": resident / 1e6}
    return row | {"files": process.num_fds(), "files of workers": sum(each.num_fds() for each in workers)}


def load(work: Path, samples: int) -> list[dict[str, Any]]:
    data, rows, done = make_data(work, num_workers=2), [], 0
    data.build_index("train")
    loader = data.train_dataloader()
    while done < samples:
        for _ in loader:
            done += 1
            if done % (samples // PARTS) == 0:
                rows.append(usage("samples", done))
            if done == samples:
                break
    return rows


class Usage(pl.Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.rows: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % (self.steps // PARTS) == 0:
            self.rows.append(usage("steps", trainer.global_step))


def train(work: Path, steps: int) -> list[dict[str, Any]]:
    loss = make_loss({"l2": 1.0, "ufloss": "auto"}, feature_net=pretrained_feature_net("general-complex"))
    module, found = MoDLModule(num_unrolls=2, chans=8, num_layers=3, loss=loss), Usage(steps)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        default_root_dir=work / "run",
        callbacks=[SeededSteps(0), LastCheckpoint(work / "run" / "last.ckpt", every_n_train_steps=50), found],
        plugins=[AtomicCheckpointIO()],
        logger=TensorBoardLogger(work / "run"),
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=make_data(work, num_workers=0))
    return found.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for function, count in ((load, args.samples), (train, args.steps)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # each by itself
            rows += pool.submit(function, args.work, count).result()
    print(format_table(rows))
    if args.json:
        write_json(args.json, {"rows": rows})


if __name__ == "__main__":
    main()
