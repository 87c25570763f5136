"""Patches as sums of a few atoms: matching pursuit for very many signals at once, and learned dictionaries."""

import math
import warnings

import torch
from torch import Tensor

__all__ = ["cosine_dictionary", "learn_dictionary", "sparse_approximation"]


def sparse_approximation(signals: Tensor, atoms: Tensor, *, sparsity: int, tolerance: float) -> Tensor:
    r"""Approximate each signal by a few atoms, with orthogonal matching pursuit.

    Atom by atom, the one with the largest correlation with what is left of the signal is added, and the signal is
    projected on all those it has, until

    .. math:: \| s_i - \alpha_i D \|_2^2 \le tolerance \quad \text{or} \quad \| \alpha_i \|_0 = sparsity

    The channels of a signal share their atoms, each with coefficients of its own: with the real and the imaginary
    part as two channels this is the pursuit of a complex signal with complex coefficients. All signals take a
    step at once, and those that are done leave; scikit-learn's pursuit, which has the same result for one
    channel, runs through the signals in Python.

    Args:
        signals: (n, channels, length), real.
        atoms: D, (num_atoms, length), of norm 1.
        sparsity: the largest number of atoms of a signal.
        tolerance: the largest squared error, over all channels.

    Returns:
        The approximations, (n, channels, length).

    Raises:
        ValueError: if the shapes do not belong together or an option is out of range.

    References:
        Y. C. Pati, R. Rezaiifar and P. S. Krishnaprasad, Asilomar Conf Signals 1993; J. A. Tropp, A. C. Gilbert
        and M. J. Strauss, Signal Processing 86:572-588, 2006 (several channels).
    """
    if signals.ndim != 3 or atoms.ndim != 2 or atoms.shape[1] != signals.shape[2]:
        raise ValueError(
            "signals must have shape (n, channels, length) and atoms (num_atoms, length), got "
            f"{tuple(signals.shape)} and {tuple(atoms.shape)}"
        )
    if not 1 <= sparsity <= len(atoms):
        raise ValueError(f"sparsity must be from 1 to the number of atoms ({len(atoms)}), got {sparsity}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    residuals = signals.clone()
    active = (_energy(signals) > tolerance).nonzero()[:, 0]
    residual = signals[active]
    basis: list[Tensor] = []  # of each active signal, orthonormal; an entry is (active, length)
    for step in range(sparsity):
        direction = _orthogonal_part(atoms[_best_atom(residual, atoms)], basis)
        residual = residual - (residual @ direction[..., None]) * direction[:, None]
        residuals[active] = residual
        if step == sparsity - 1:
            break
        remaining = _energy(residual) > tolerance
        active, residual = active[remaining], residual[remaining]
        basis = [vectors[remaining] for vectors in (*basis, direction)]
    return signals - residuals


def _energy(signals: Tensor) -> Tensor:
    return signals.square().sum(dim=(1, 2))


def _best_atom(residual: Tensor, atoms: Tensor) -> Tensor:
    correlation = residual @ atoms.T
    return correlation.square().sum(dim=1).argmax(dim=1)


def _orthogonal_part(atoms: Tensor, basis: list[Tensor]) -> Tensor:
    """The part of each signal's atom that its basis lacks, of norm 1, or 0 where there is none."""
    for vectors in basis:
        atoms = atoms - (atoms * vectors).sum(dim=1, keepdim=True) * vectors
    norm = atoms.norm(dim=1, keepdim=True)
    # an atom may come again where the error cannot become smaller: its part is rounding only
    return torch.where(norm > 1e-4, atoms / norm.clamp(min=1e-4), 0)


def cosine_dictionary(patch_size: int, num_atoms: int) -> Tensor:
    r"""Products of two cosines, the constant one left out, as the atoms of square patches.

    .. math:: d_{kl}(i, j) \propto \cos(\pi k (i + 1/2) / n) \cos(\pi l (j + 1/2) / n)

    from the lowest frequencies on, with :math:`n` the smallest number that gives enough atoms and is not below
    ``patch_size``. With :math:`n` = ``patch_size`` it is the discrete cosine transform, and overcomplete otherwise.

    Args:
        patch_size: rows and columns.
        num_atoms: number of atoms.

    Returns:
        (num_atoms, patch_size**2), each atom with a mean of 0 and a norm of 1.
    """
    number = max(patch_size, math.isqrt(num_atoms) + 1)
    frequency = torch.arange(number, dtype=torch.float64)
    waves = torch.cos(torch.pi * frequency[:, None] * (torch.arange(patch_size) + 0.5) / number)
    atoms = torch.einsum("ki,lj->klij", waves, waves).reshape(number**2, -1)
    order = (frequency[:, None] + frequency).flatten().argsort(stable=True)[1 : num_atoms + 1]
    return _normalized(atoms[order] - atoms[order].mean(dim=1, keepdim=True)).float()


def _normalized(atoms: Tensor) -> Tensor:
    return atoms / atoms.norm(dim=1, keepdim=True)


def learn_dictionary(signals: Tensor, start: Tensor, *, alpha: float, seed: int) -> Tensor:
    r"""A dictionary for given signals, learned by ``sklearn.decomposition.MiniBatchDictionaryLearning``.

    .. math:: \min_{A, D} \tfrac{1}{2} \| S - A D \|_2^2 + \alpha \| A \|_1, \qquad \| d_k \|_2 = 1

    One pass over the signals.

    Args:
        signals: S, (n, length), real.
        start: D at the start, (num_atoms, length).
        alpha: weight of the sparsity, in the unit of the signals.
        seed: of the order of the signals.

    Returns:
        D, (num_atoms, length), on the device of start.

    Raises:
        ImportError: if scikit-learn is missing.

    Reference:
        J. Mairal, F. Bach, J. Ponce and G. Sapiro, Online dictionary learning for sparse coding, ICML 2009.
    """
    try:
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError(
            f"dictionaries are learned by scikit-learn ({error}): pip install 'fastmri-ufloss[classical]'"
        ) from error
    learner = MiniBatchDictionaryLearning(
        len(start),
        alpha=alpha,
        max_iter=1,
        fit_algorithm="lars",
        batch_size=256,
        dict_init=start.double().cpu().numpy(),
        random_state=seed,
        tol=0,  # no early stop
        max_no_improvement=None,
    )
    with warnings.catch_warnings():
        # similar atoms end the path of a signal early: its code is less good, and the dictionary only little
        warnings.simplefilter("ignore", ConvergenceWarning)
        atoms = torch.from_numpy(learner.fit(signals.double().cpu().numpy()).components_)
    norm = atoms.norm(dim=1, keepdim=True)
    # scikit-learn bounds the norms; an atom that became zero keeps its start
    atoms = torch.where(norm > 0, atoms / norm, start.double().cpu())
    return atoms.to(start)
