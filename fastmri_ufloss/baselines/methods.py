"""The classical methods by name: what a table calls them, how to run them, and what weight there is to choose."""

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastmri_ufloss.baselines.compressed_sensing import bart_pics, has_bart, pics
from fastmri_ufloss.baselines.dictionary_learning import dlmri
from fastmri_ufloss.losses import parse_weights
from fastmri_ufloss.mri import cg_sense, sens_reduce

__all__ = ["CLASSICAL_METHODS", "ClassicalMethod", "read_weights"]


class ClassicalMethod(NamedTuple):
    """A reconstruction without a trained network.

    Args:
        title: in tables.
        function: (masked_kspace, mask, sens_maps, *, lam) to a complex image (batch, rows, cols).
        bounds: smallest and largest weight that a search may try; None where the function has no ``lam``.
        needs: what is not installed with this package: the program of BART, or scikit-learn.
        allows_zero: whether the weight may be 0.
    """

    title: str
    function: Callable[..., Tensor]
    bounds: tuple[float, float] | None = None
    needs: Literal["bart", "scikit-learn"] | None = None
    allows_zero: bool = True

    @property
    def start(self) -> float | None:
        """The weight's default, where a search starts; None where there is none."""
        return None if self.bounds is None else float(inspect.signature(self.function).parameters["lam"].default)

    @property
    def missing(self) -> str:
        """What to install to run the method; empty if nothing is missing."""
        if self.needs == "bart" and not has_bart():
            return (
                f"{self.title} needs the program 'bart' on the PATH: install BART (https://mrirecon.github.io/bart)"
            )
        if self.needs == "scikit-learn" and importlib.util.find_spec("sklearn") is None:
            return f"{self.title} needs scikit-learn: pip install 'fastmri-ufloss[classical]'"
        return ""

    def __call__(self, masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor, lam: float | None = None) -> Tensor:
        """Complex image (batch, rows, cols), by the default weight if ``lam`` is None.

        Raises:
            ValueError: if there is no weight to give, or the weight is out of range.
        """
        if lam is None:
            return self.function(masked_kspace, mask, sens_maps)
        if self.bounds is None:
            raise ValueError(f"lam must be None: {self.title} has no weight, got {lam}")
        return self.function(masked_kspace, mask, sens_maps, lam=lam)


def _zero_filled(masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> Tensor:
    return torch.view_as_complex(sens_reduce(masked_kspace, sens_maps))[:, 0]


_WAVELET: dict[str, Any] = {"regularizer": "wavelet"}
_TV: dict[str, Any] = {"regularizer": "total_variation"}

CLASSICAL_METHODS = {
    "zero_filled": ClassicalMethod("zero-filled", _zero_filled),
    # the number of iterations, which regularizes as well, stays at its default
    "cg_sense": ClassicalMethod("CG-SENSE", cg_sense, (1e-4, 1.0)),
    "pics_wavelet": ClassicalMethod("PICS, l1-wavelet", partial(pics, **_WAVELET), (1e-5, 1.0)),
    "pics_tv": ClassicalMethod("PICS, total variation", partial(pics, **_TV), (1e-5, 1.0)),
    "dlmri": ClassicalMethod("DLMRI", dlmri, (1e-3, 1.0), "scikit-learn", allows_zero=False),
    "bart_wavelet": ClassicalMethod("PICS, l1-wavelet (BART)", partial(bart_pics, **_WAVELET), (1e-5, 1.0), "bart"),
    "bart_tv": ClassicalMethod("PICS, total variation (BART)", partial(bart_pics, **_TV), (1e-5, 1.0), "bart"),
}
"""By name, as folders are called."""


def read_weights(items: Iterable[str], methods: Iterable[str]) -> dict[str, float]:
    """Weights by method, from texts such as ``"pics_tv=0.004"``.

    Raises:
        ValueError: if an item is no METHOD=VALUE, a method comes twice, is none of ``methods`` or has no weight, or a
            method does not take the value.
    """
    items, known = list(items), list(methods)
    weights = {name: weight for name, weight in parse_weights(items).items() if isinstance(weight, float)}
    for item in items:
        if "=" not in item or item.partition("=")[0] not in weights:  # parse_weights knows defaults and ramps
            raise ValueError(f"weights must be of the form METHOD=VALUE, got {item!r}")
    for name, value in weights.items():
        if name not in known:
            raise ValueError(f"weights must be of the methods {', '.join(known)}, got {name!r}")
        method = CLASSICAL_METHODS.get(name)
        if method is None or method.bounds is None:
            raise ValueError(f"weights must be of methods that have one, got {name}={value:g}")
        if value == 0 and not method.allows_zero:
            raise ValueError(f"the weight of {name} must be above 0, got {name}={value:g}")
    return weights
