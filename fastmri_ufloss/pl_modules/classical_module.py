"""The test of classical methods: their leaderboard files, the references, scores and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.metrics.volumes import VolumeScores
from fastmri_ufloss.pl_modules.classical_data import FinishedVolumes
from fastmri_ufloss.pl_modules.reconstruction_module import save_pictures
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter
from fastmri_ufloss.pl_modules.scoring import add_scores, write_scores

__all__ = ["ClassicalModule", "method_folders"]

Batch = Any  # a collated `ClassicalSample`

REFERENCE = "reference"


def method_folders(folder: Path, methods: Sequence[str]) -> dict[str, Path]:
    """Where the files of each method are, and those of the reference, in the folder of a run."""
    return {**{name: folder / "reconstructions" / name for name in methods}, REFERENCE: folder / REFERENCE}


class ClassicalModule(pl.LightningModule):
    """Writes and scores what `ClassicalTransform` has reconstructed.

    In the trainer's ``default_root_dir``: ``reconstructions/METHOD/*.h5``, leaderboard files; ``reference/*.h5``, in
    the same form, the coil-combined images of fully sampled files; ``pictures/*.png``, the middle slice of each
    volume by all methods; and ``scores.json`` and ``reconstruction.png`` where there are references.

    Args:
        methods: names of `CLASSICAL_METHODS`, those of the transform in their order.
        finished: files that are not written again.
    """

    def __init__(self, methods: Sequence[str], finished: FinishedVolumes) -> None:
        super().__init__()
        self.methods = list(methods)
        self._finished = finished
        self._writers: dict[str, ReconstructionWriter] = {}

    def on_test_epoch_start(self) -> None:
        folders = method_folders(Path(self.trainer.default_root_dir), self.methods)
        self._writers = {name: ReconstructionWriter(folder) for name, folder in folders.items()}
        self._scores = VolumeScores()
        self._fnames: dict[str, None] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Write and score a collated batch."""
        for i, fname in enumerate(batch.fname):
            number = int(batch.slice_num[i])
            self._fnames[fname] = None
            for name, image in zip(self.methods, batch.images[i], strict=True):
                if (name, fname) not in self._finished:
                    self._writers[name].add(fname, number, image, mask=batch.mask[i])
            if batch.reference.numel() and (REFERENCE, fname) not in self._finished:
                self._writers[REFERENCE].add(fname, number, batch.reference[i])
        if batch.reference.numel() and batch.target.ndim == 3:
            titles = [CLASSICAL_METHODS[name].title for name in self.methods]
            images = dict(zip(titles, batch.images.unbind(dim=1), strict=True))
            add_scores(self._scores, batch, images, batch.reference, {})

    def on_test_epoch_end(self) -> None:
        for writer in self._writers.values():
            writer.close()
        write_scores(self.trainer, self._scores)
        folder = Path(self.trainer.default_root_dir)
        titles = {name: CLASSICAL_METHODS[name].title for name in self.methods}
        for fname in self._fnames:  # of this process
            save_pictures(folder, fname, titles)
        self.trainer.strategy.barrier("reconstructions")
        if self.trainer.is_global_zero:
            print(f"Images: {folder / 'reconstructions'}\nPictures: {folder / 'pictures'}", flush=True)

    def discard(self) -> None:
        """Remove what is not complete, after an interruption."""
        for writer in self._writers.values():
            writer.discard()
