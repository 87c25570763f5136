"""Weights of classical methods, searched on the validation split."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fastmri_ufloss.baselines import CLASSICAL_METHODS, SearchedWeight, evenly_spaced, search_weight
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.pl_modules.classical_data import magnitude, reconstruct, single_thread
from fastmri_ufloss.pl_modules.data_module import MriDataModule
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report.reconstructed_volume import stamp_of

__all__ = ["WeightSearch", "check_split", "note_by_hand"]

SCORE = "mean NRMSE over the volumes, magnitudes against the coil-combined image"


def check_split(data: MriDataModule, methods: Sequence[str]) -> None:
    """Make sure that weights can be searched, and not on what is reconstructed.

    Raises:
        FileNotFoundError: if there is no validation split.
        ValueError: if it has files of the test.
    """
    val, test = data.folder("val"), data.folder("test")
    by_hand = f"give the weights by hand: --weights {' '.join(f'{name}=VALUE' for name in methods)}"
    if not val.is_dir() or not any(path.suffix in (".h5", ".hdf5") for path in val.iterdir()):
        raise FileNotFoundError(
            f"no volumes in {val} to search weights on, and they are never searched on the images that are "
            f"reconstructed: {by_hand}"
        )
    shared = _shared(list_volumes(val), list_volumes(test))
    if shared:
        raise ValueError(
            f"{test}, which is to be reconstructed, has {len(shared)} of the volumes of {val} ({shared[0].name}), on "
            "which the weights are searched: they must not be chosen on their own test. Take another --test_path, or "
            f"{by_hand}"
        )


def _shared(val: Sequence[Path], test: Sequence[Path]) -> list[Path]:
    """Files of the test that are, or are links to or copies of, files of the validation split."""
    links = {(path.stat().st_dev, path.stat().st_ino) for path in val}
    by_size: dict[int, list[Path]] = {}
    for path in val:
        by_size.setdefault(path.stat().st_size, []).append(path)
    found = []
    for path in test:
        status = path.stat()
        alike = [other for other in by_size.get(status.st_size, []) if other.name == path.name]
        if (status.st_dev, status.st_ino) in links or any(_part(path) == _part(other) for other in alike):
            found.append(path)
    return found


def _part(path: Path) -> bytes:
    """From the middle of a file."""
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(2**20)


class WeightSearch:
    """Searches the weights of classical methods for the lowest error on some slices of the validation split.

    Of each method, `search_weight` with the start and the bounds of `CLASSICAL_METHODS` minimizes the NRMSE,
    |x - t| / |t| over the slices of a volume, averaged over the volumes. The slices are spread evenly over all
    those of the split. Each candidate and slice is a task for the loader's workers, and for the trainer's processes.

    ``weights.json`` holds all that was tried; a search that was interrupted goes on from it.

    Args:
        trainer: runs the tasks, by its validation.
        data: whose validation transform makes `MoDLSample` with maps and reference.
        file: path of ``weights.json``.
        settings: what the scores depend on, beside the slices.
        num_slices: how many slices are searched on, at least 1.

    Raises:
        ValueError: if ``file`` was made with other settings, or num_slices is out of range.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        data: MriDataModule,
        file: Path,
        *,
        settings: Mapping[str, Any],
        num_slices: int = 12,
    ) -> None:
        if num_slices < 1:
            raise ValueError(f"num_slices must be at least 1, got {num_slices}")
        data.build_index("val")
        dataset = data.dataset("val")
        self._tasks = _Tasks(dataset, evenly_spaced(len(dataset), num_slices))
        self._trainer = trainer
        self._num_workers = data.num_workers
        self._file = file
        self._document: dict[str, Any] = {
            "split": str(data.folder("val").resolve()),
            "score": SCORE,
            "settings": json.loads(json.dumps(settings, default=str)),
            "slices": self._tasks.slices,
            "methods": {},
        }
        if file.is_file():
            self._document["methods"] = self._read_methods()

    def run(self, name: str) -> SearchedWeight:
        """The weight of a method.

        Raises:
            ValueError: if the split is undersampled, or no weight gives an image.
        """
        method = CLASSICAL_METHODS[name]
        if method.start is None or method.bounds is None:
            raise ValueError(f"name must be of a method that has a weight, got {name!r}")
        stored = self._document["methods"].get(name, {}).get("tried", [])
        known = {row["weight"]: row["NRMSE"] for row in stored}

        def evaluate(weights: Sequence[float]) -> list[float]:
            scores = self._evaluate(name, weights)
            known.update(zip(weights, scores, strict=True))
            self._note(name, {"tried": _rows(known)})
            return scores

        found = search_weight(evaluate, start=method.start, bounds=method.bounds, known=known)
        self._note(
            name,
            {
                "weight": found.weight,
                "NRMSE": found.score,
                "at bound": found.at_bound,
                "tried": _rows(known),
            },
        )
        return found

    def _evaluate(self, name: str, weights: Sequence[float]) -> list[float]:
        self._tasks.name, self._tasks.weights = name, list(weights)
        sampler = _OfProcess(len(self._tasks), self._trainer.global_rank, self._trainer.world_size)
        loader = DataLoader(
            self._tasks, batch_size=None, sampler=sampler, num_workers=self._num_workers, collate_fn=_unchanged
        )
        module = _CollectErrors()
        self._trainer.validate(module, dataloaders=loader, verbose=False)
        return [_mean_nrmse(module.errors, number) for number in range(len(weights))]

    def _note(self, name: str, values: Mapping[str, Any]) -> None:
        self._document["methods"][name] = dict(values)
        if self._trainer.is_global_zero:
            write_json(self._file, self._document)

    def _read_methods(self) -> dict[str, Any]:
        stored = json.loads(self._file.read_text(encoding="utf-8"))
        if "split" not in stored:  # all weights of an earlier run were given by hand
            return dict(stored["methods"])
        for name in ("split", "settings", "slices"):
            if stored.get(name) != self._document[name]:
                raise ValueError(
                    f"{self._file} was made with {name} {_short(stored.get(name))}, not "
                    f"{_short(self._document[name])}: type the same flags again, remove the file, or take another "
                    "--output_path"
                )
        return dict(stored["methods"])


def note_by_hand(file: Path, weights: Mapping[str, float]) -> None:
    """Note weights that were not searched in ``weights.json``, beside those that were."""
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"methods": {}}
    for name, weight in weights.items():
        tried = document["methods"].get(name, {}).get("tried", [])
        document["methods"][name] = {"weight": weight, "by hand": True, "tried": tried}
    write_json(file, document)


class _Tasks(Dataset):
    """For each slice and weight the squared error and the energy of the reference."""

    def __init__(self, dataset: IndexedSliceDataset, indices: list[int]) -> None:
        self.name = ""
        self.weights: list[float] = []
        self._dataset = dataset
        self._indices = indices
        samples = [dataset.raw_samples[index] for index in indices]
        self.slices = [
            {"volume": sample.fname.name, "slice": sample.slice_ind, "size": size, "mtime": mtime}
            for sample in samples
            for _, size, mtime in [stamp_of(sample.fname)]
        ]

    def __len__(self) -> int:
        return len(self._indices) * len(self.weights)

    def __getitem__(self, task: int) -> tuple[int, int, str, float, float]:
        place, number = divmod(task, len(self.weights))
        with single_thread():
            sample = self._dataset[self._indices[place]]
            if not sample.reference.numel():
                raise ValueError(
                    f"{sample.fname} of the validation split is undersampled, and weights are searched on fully "
                    f"sampled data: give them by hand, --weights {self.name}=VALUE"
                )
            reference = magnitude(sample, sample.reference).double()
            image = magnitude(sample, reconstruct(self.name, sample, self.weights[number])).double()
        error = float((image - reference).square().sum())
        return place, number, sample.fname, error, float(reference.square().sum())


class _OfProcess(Sampler[int]):
    """Every n-th task, at least one, so that no process of Lightning is without any."""

    def __init__(self, count: int, rank: int, world_size: int) -> None:
        self._tasks = list(range(rank, count, world_size)) or [rank % count]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[int]:
        return iter(self._tasks)


class _CollectErrors(pl.LightningModule):
    """Gathers what the workers have computed, by (slice, weight)."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[tuple[int, int], tuple[str, float, float]] = {}

    def validation_step(self, task: tuple[int, int, str, float, float], batch_idx: int) -> None:
        place, number, fname, error, energy = task
        self.errors[place, number] = (fname, error, energy)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.errors)
            self.errors = {key: value for part in gathered for key, value in part.items()}


def _mean_nrmse(errors: Mapping[tuple[int, int], tuple[str, float, float]], number: int) -> float:
    """Of one weight; volumes without signal have none."""
    sums: dict[str, list[float]] = {}
    for (_, weight_number), (fname, error, energy) in sorted(errors.items()):
        if weight_number == number:
            of_volume = sums.setdefault(fname, [0.0, 0.0])
            of_volume[0] += error
            of_volume[1] += energy
    return float(np.mean([np.sqrt(error / energy) for error, energy in sums.values() if energy > 0]))


def _unchanged(task: Any) -> Any:
    return task


def _rows(scores: Mapping[float, float]) -> list[dict[str, float]]:
    return [{"weight": weight, "NRMSE": score} for weight, score in sorted(scores.items())]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 300 else f"{text[:300]}..."
