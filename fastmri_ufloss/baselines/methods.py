"""The classical methods by name: what a table calls them, how to run them, and what weight there is to choose."""

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from fastmri_ufloss.baselines.compressed_sensing import BART, has_bart, pics
from fastmri_ufloss.baselines.dictionary_learning import dlmri
from fastmri_ufloss.checks import check
from fastmri_ufloss.losses import parse_weights
from fastmri_ufloss.mri import cg_sense, sense_adjoint

__all__ = ["CLASSICAL_METHODS", "ClassicalMethod", "read_weights"]


class ClassicalMethod(NamedTuple):
    """A reconstruction without a trained network."""

    title: str  # in tables
    function: Callable[..., Tensor]  # (masked_kspace, mask, sens_maps, *, lam) to a complex image, see `cg_sense`
    bounds: tuple[float, float] | None = None  # of the weights that a search may try; None: there is no ``lam``
    needs: Literal["bart", "scikit-learn"] | None = None  # what is not installed with this package
    allows_zero: bool = True  # as a weight

    @property
    def start(self) -> float | None:
        """The weight's default, where a search starts; None where there is none."""
        return None if self.bounds is None else float(inspect.signature(self.function).parameters["lam"].default)

    @property
    def missing(self) -> str:
        """What to install to run the method; empty if nothing is missing."""
        if self.needs == "bart" and not has_bart():
            return f"{self.title} needs {BART}"
        if self.needs == "scikit-learn" and importlib.util.find_spec("sklearn") is None:
            return f"{self.title} needs scikit-learn: pip install 'fastmri-ufloss[classical]'"
        return ""

    def __call__(self, masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor, lam: float | None = None) -> Tensor:
        """Complex image (batch, rows, cols) or, of several sets of maps, (batch, sets, rows, cols).

        By the default weight if ``lam`` is None.
        """
        if lam is None:
            return self.function(masked_kspace, mask, sens_maps)
        check(self.bounds is not None, "lam", f"None: {self.title} has no weight", lam)
        return self.function(masked_kspace, mask, sens_maps, lam=lam)


def _zero_filled(masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> Tensor:
    return sense_adjoint(masked_kspace, sens_maps)


_wavelet = partial(pics, regularizer="wavelet")
_tv = partial(pics, regularizer="total_variation")

CLASSICAL_METHODS = {
    "zero_filled": ClassicalMethod("zero-filled", _zero_filled),
    # the number of iterations, which regularizes as well, stays at its default
    "cg_sense": ClassicalMethod("CG-SENSE", cg_sense, (1e-4, 1.0)),
    "pics_wavelet": ClassicalMethod("PICS, l1-wavelet", _wavelet, (1e-5, 1.0)),
    "pics_tv": ClassicalMethod("PICS, total variation", _tv, (1e-5, 1.0)),
    "dlmri": ClassicalMethod("DLMRI", dlmri, (1e-3, 1.0), "scikit-learn", allows_zero=False),
    "bart_wavelet": ClassicalMethod("PICS, l1-wavelet (BART)", partial(_wavelet, solver="bart"), (1e-5, 1.0), "bart"),
    "bart_tv": ClassicalMethod("PICS, total variation (BART)", partial(_tv, solver="bart"), (1e-5, 1.0), "bart"),
}
"""By name, as folders are called."""


def read_weights(items: Iterable[str], methods: Iterable[str]) -> dict[str, float]:
    """Weights by method, from texts such as ``"pics_tv=0.004"``; ValueError for a wrong method, value or text."""
    items, known = list(items), list(methods)
    weights = {name: weight for name, weight in parse_weights(items).items() if isinstance(weight, float)}
    for item in items:
        fits = "=" in item and item.partition("=")[0] in weights  # parse_weights knows defaults and ramps
        check(fits, "weights", "of the form METHOD=VALUE", repr(item))
    weighted = {name: method for name, method in CLASSICAL_METHODS.items() if method.bounds is not None}
    for name, value in weights.items():
        check(name in known, "weights", f"of the methods {', '.join(known)}", repr(name))
        check(name in weighted, "weights", "of methods that have one", f"{name}={value:g}")
        check(value > 0 or weighted[name].allows_zero, f"the weight of {name}", "above 0", f"{name}={value:g}")
    return weights
