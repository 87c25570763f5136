"""Scores of reconstructed volumes, as fastMRI counts: per volume, then the mean over volumes."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastmri.evaluate import nmse, psnr, ssim

__all__ = ["VolumeScores", "mean_scores", "score_volume"]

Images = Mapping[str, np.ndarray]


def score_volume(target: np.ndarray, output: np.ndarray, *, max_value: float | None = None) -> dict[str, float]:
    """NRMSE, PSNR (dB) and SSIM of a volume.

    NRMSE = |x - t| / |t| over the volume; PSNR and SSIM are fastMRI's.

    Args:
        target: (slices, rows, cols), magnitude.
        output: the same shape.
        max_value: data range of PSNR and SSIM, the target's maximum if not given.

    Raises:
        ValueError: if the shapes differ or are not of a volume.
    """
    if target.ndim != 3 or target.shape != output.shape:
        raise ValueError(
            f"target and output must have one shape (slices, rows, cols), got {target.shape} and {output.shape}"
        )
    return {
        "NRMSE": float(np.sqrt(nmse(target, output))),
        "PSNR": float(psnr(target, output, maxval=max_value)),
        "SSIM": float(ssim(target, output, maxval=max_value).item()),
    }


class VolumeScores:
    """Scores several methods, volume by volume, while their slices come one after another.

    The scores are those of `score_volume`. The slices of the volume at hand wait on disk for its data range,
    which the SSIM of each of them needs, so memory does not grow with their number. Slices that come again later
    are dropped.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.example: dict[str, np.ndarray] = {}
        self._done: set[str] = set()
        self._volume: _Volume | None = None

    def add(
        self,
        fname: str,
        slice_num: int,
        *,
        outputs: Images,
        targets: Images,
        max_value: float,
        ufloss: Mapping[str, float],
    ) -> None:
        """Add a slice.

        Args:
            fname: its volume.
            slice_num: its number.
            outputs: magnitude image (rows, cols) of each method.
            targets: magnitude images to score against, by name; ``"RSS"`` has ``max_value`` as data range, the
                others the maximum of their volume.
            max_value: of the RSS volume.
            ufloss: of each method, may be empty.
        """
        if self._volume is None or fname != self._volume.fname:
            self.close()
            self._volume = _Volume(fname, list(outputs), list(targets), max_value)
        if fname not in self._done and slice_num not in self._volume.slices:
            self._volume.add(slice_num, outputs, targets, ufloss)

    def close(self) -> None:
        """Score the volume at hand."""
        volume, self._volume = self._volume, None
        if volume is None or not volume.slices:
            return
        self.rows += volume.scores()
        if not self.example:
            self.example = volume.read(len(volume.slices) // 2)
        self._done.add(volume.fname)
        volume.close()


class _Volume:
    """The slices of a volume on disk, and what has been summed up over them."""

    def __init__(self, fname: str, methods: list[str], targets: list[str], max_value: float) -> None:
        self.fname = fname
        self.slices: list[int] = []
        self._methods, self._targets = methods, targets
        self._ranges = {name: max_value if name == "RSS" else 0.0 for name in targets}
        self._norms = dict.fromkeys(targets, 0.0)
        self._errors = {(method, target): 0.0 for method in methods for target in targets}
        self._ufloss: dict[str, list[float]] = {}
        self._shape: tuple[int, ...] = ()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open until the volume is complete

    def add(self, slice_num: int, outputs: Images, targets: Images, ufloss: Mapping[str, float]) -> None:
        images = [
            np.asarray(group[name], dtype=np.float32)
            for group, names in ((targets, self._targets), (outputs, self._methods))
            for name in names
        ]
        self._shape = images[0].shape
        for name in self._targets:
            self._norms[name] += _energy(targets[name])
            if name != "RSS":
                self._ranges[name] = max(self._ranges[name], float(np.max(targets[name])))
        for method, target in self._errors:
            self._errors[method, target] += _energy(outputs[method] - targets[target])
        for method, value in ufloss.items():
            self._ufloss.setdefault(method, []).append(value)
        self._file.write(np.stack(images).tobytes())
        self.slices.append(slice_num)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """All images of a slice, the targets first."""
        names = [*self._targets, *self._methods]
        size = len(names) * math.prod(self._shape)
        self._file.seek(number * size * 4)
        images = np.frombuffer(self._file.read(size * 4), dtype=np.float32).reshape(-1, *self._shape)
        return dict(zip(names, images, strict=True))

    def scores(self) -> list[dict[str, Any]]:
        """A row for each method."""
        similarity = dict.fromkeys(self._errors, 0.0)
        count = len(self.slices)
        for number in range(count):
            images = self.read(number)
            for method, target in similarity:
                value = ssim(images[target][None], images[method][None], maxval=self._ranges[target])
                similarity[method, target] += float(value.item()) / count
        pixels = count * math.prod(self._shape)
        rows: list[dict[str, Any]] = [{"volume": self.fname, "method": method} for method in self._methods]
        for row in rows:
            for target in self._targets:
                error = self._errors[row["method"], target]
                row[f"NRMSE ({target})"] = float(np.sqrt(np.divide(error, self._norms[target])))
                row[f"PSNR ({target})"] = float(10 * np.log10(np.divide(self._ranges[target] ** 2 * pixels, error)))
                row[f"SSIM ({target})"] = similarity[row["method"], target]
            if self._ufloss:
                row["UFLoss"] = float(np.mean(self._ufloss[row["method"]]))
        return rows

    def close(self) -> None:
        self._file.close()


def _energy(image: np.ndarray) -> float:
    return float(np.square(image, dtype=np.float64).sum())


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over volumes for each method, in the order of the methods' first rows."""
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        names = [name for name in of_method[0] if name not in ("volume", "method")]
        mean = {name: float(np.mean([row[name] for row in of_method])) for name in names}
        means.append({"method": method, "volumes": len(of_method), **mean})
    return means
