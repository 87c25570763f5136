"""Scores of reconstructed volumes, as fastMRI counts: per volume, then the mean over volumes."""

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

    Holds the slices of one volume at a time. Slices that come again later are dropped.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.example: dict[str, np.ndarray] = {}
        self._fname = ""
        self._slices: dict[int, tuple[Images, Images, Mapping[str, float]]] = {}
        self._max_value = 0.0
        self._done: set[str] = set()

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
        if fname != self._fname:
            self.close()
            self._fname = fname
        if fname not in self._done:
            self._slices[slice_num] = (outputs, targets, ufloss)
            self._max_value = max_value

    def close(self) -> None:
        """Score the volume at hand."""
        if not self._slices:
            return
        slices = [entry for _, entry in sorted(self._slices.items())]
        for method in slices[0][0]:
            output = np.stack([outputs[method] for outputs, _, _ in slices])
            row: dict[str, Any] = {"volume": self._fname, "method": method}
            for against in slices[0][1]:
                target = np.stack([targets[against] for _, targets, _ in slices])
                max_value = self._max_value if against == "RSS" else None
                scores = score_volume(target, output, max_value=max_value)
                row.update({f"{name} ({against})": value for name, value in scores.items()})
            if slices[0][2]:
                row["UFLoss"] = float(np.mean([ufloss[method] for _, _, ufloss in slices]))
            self.rows.append(row)
        if not self.example:
            outputs, targets, _ = slices[len(slices) // 2]
            self.example = {**targets, **outputs}
        self._done.add(self._fname)
        self._slices = {}


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over volumes for each method, in the order of the methods' first rows."""
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        names = [name for name in of_method[0] if name not in ("volume", "method")]
        mean = {name: float(np.mean([row[name] for row in of_method])) for name in names}
        means.append({"method": method, "volumes": len(of_method), **mean})
    return means
