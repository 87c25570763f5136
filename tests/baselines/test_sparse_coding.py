import sys
import warnings

import numpy as np
import pytest
import scipy.fft
import torch
from sklearn.linear_model import orthogonal_mp, orthogonal_mp_gram

from fastmri_ufloss.baselines.dictionary_learning import cosine_dictionary, learn_dictionary, sparse_approximation


def random_atoms(number: int, length: int, *, seed: int = 0) -> torch.Tensor:
    atoms = torch.randn(number, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return atoms / atoms.norm(dim=1, keepdim=True)


def random_signals(number: int, channels: int, length: int) -> torch.Tensor:
    """Of sizes from 0.01 to 10."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.logspace(-2, 1, number, dtype=torch.float64)[:, None, None]
    return sizes * torch.randn(number, channels, length, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sparsity", [1, 2, 7])
def test_it_is_the_pursuit_of_scikit_learn(sparsity: int) -> None:
    atoms, signals = random_atoms(40, 25), random_signals(50, 1, 25)
    coefficients = orthogonal_mp(atoms.T.numpy(), signals[:, 0].T.numpy(), n_nonzero_coefs=sparsity)
    actual = sparse_approximation(signals, atoms, sparsity=sparsity, tolerance=0.0)
    torch.testing.assert_close(actual[:, 0], torch.from_numpy(coefficients.T) @ atoms)


def test_it_stops_at_an_error_as_that_of_scikit_learn() -> None:
    atoms, signals, tolerance = random_atoms(40, 25), random_signals(50, 1, 25), 0.8
    matrix, columns = atoms.T.numpy(), signals[:, 0].T.numpy()
    coefficients = orthogonal_mp_gram(
        matrix.T @ matrix, matrix.T @ columns, tol=tolerance, norms_squared=(columns**2).sum(axis=0)
    )
    actual = sparse_approximation(signals, atoms, sparsity=25, tolerance=tolerance)
    # scikit-learn gives every signal one atom at least
    large = signals.square().sum(dim=(1, 2)) > tolerance
    assert 10 < large.sum() < 40
    torch.testing.assert_close(actual[large, 0], torch.from_numpy(coefficients.T)[large] @ atoms)
    assert not actual[~large].any()
    assert ((signals - actual).square().sum(dim=(1, 2)) <= tolerance).all()


def test_channels_share_their_atoms() -> None:
    """The pursuit of a complex signal: each step takes the atom of the largest complex correlation."""
    atoms, signals = random_atoms(30, 16), random_signals(20, 2, 16)
    actual = sparse_approximation(signals, atoms, sparsity=4, tolerance=0.0)
    for signal, approximation in zip(signals, actual, strict=True):
        values, dictionary = torch.complex(*signal), atoms.to(torch.complex128)
        support: list[int] = []
        residual = values
        for _ in range(4):
            support.append(int((dictionary @ residual).abs().argmax()))
            chosen = dictionary[support].T
            residual = values - chosen @ torch.linalg.lstsq(chosen, values[:, None]).solution[:, 0]
        torch.testing.assert_close(torch.complex(*approximation), values - residual)


def test_a_signal_of_few_atoms_is_found() -> None:
    atoms = torch.eye(12)
    signals = torch.zeros(3, 2, 12)
    signals[0, 0, 3], signals[0, 1, 7], signals[1, 0, 0] = 2.0, -1.0, 0.5
    torch.testing.assert_close(sparse_approximation(signals, atoms, sparsity=12, tolerance=0.0), signals)
    one = sparse_approximation(signals, atoms, sparsity=1, tolerance=0.0)
    assert one[0, 0, 3] == 2 and not one[0, 1].any()


def test_equal_atoms_do_no_harm() -> None:
    """The error cannot become smaller: a second atom along the first would be rounding, scaled up."""
    atoms = random_atoms(1, 9).float().expand(5, -1)
    signals = random_signals(6, 1, 9).float()
    one = sparse_approximation(signals, atoms, sparsity=1, tolerance=0.0)
    torch.testing.assert_close(sparse_approximation(signals, atoms, sparsity=5, tolerance=0.0), one)


@pytest.mark.parametrize("sparsity", [0, 9])
def test_bad_sparsity_is_named(sparsity: int) -> None:
    with pytest.raises(ValueError, match="sparsity must be from 1"):
        sparse_approximation(random_signals(5, 1, 4), random_atoms(8, 4), sparsity=sparsity, tolerance=0.0)


@pytest.mark.parametrize(("patch_size", "num_atoms"), [(4, 15), (6, 99), (5, 40), (6, 10), (3, 1)])
def test_cosines_are_normalized_and_have_no_mean(patch_size: int, num_atoms: int) -> None:
    atoms = cosine_dictionary(patch_size, num_atoms)
    assert atoms.shape == (num_atoms, patch_size**2)
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(num_atoms))
    torch.testing.assert_close(atoms.mean(dim=1), torch.zeros(num_atoms), atol=1e-6, rtol=0)
    products = atoms @ atoms.T - torch.eye(num_atoms)
    assert products.abs().max() < 0.999  # no atom twice


def test_with_as_many_cosines_as_pixels_they_are_the_cosine_transform() -> None:
    atoms = cosine_dictionary(5, 24).numpy()
    signal = np.random.default_rng(0).standard_normal((5, 5))
    coefficients = scipy.fft.dctn(signal, norm="ortho").ravel()
    ours = atoms @ signal.ravel()
    np.testing.assert_allclose(np.sort(np.abs(ours)), np.sort(np.abs(coefficients[1:])), atol=1e-6)


def test_a_learned_dictionary_is_sparser() -> None:
    true, start = random_atoms(20, 16), cosine_dictionary(4, 20)
    generator = torch.Generator().manual_seed(2)
    codes = torch.zeros(1500, 20, dtype=torch.float64)
    codes.scatter_(1, torch.rand(1500, 20, generator=generator).argsort(dim=1)[:, :2], 1.0)
    codes *= torch.randn(1500, 20, generator=generator, dtype=torch.float64)
    signals = codes @ true
    learned = learn_dictionary(signals, start.double(), alpha=0.1)
    assert learned.dtype == torch.float64 and learned.shape == start.shape
    torch.testing.assert_close(learned.norm(dim=1), torch.ones(20, dtype=torch.float64))

    def error(atoms: torch.Tensor) -> float:
        approximation = sparse_approximation(signals[:, None], atoms, sparsity=2, tolerance=0.0)[:, 0]
        return float((signals - approximation).norm() / signals.norm())

    assert error(true) < 0.1  # greedy, and so not exact
    assert error(learned) < 0.75 * error(start.double())


def test_learning_depends_on_its_options_only() -> None:
    signals, start = random_signals(300, 1, 16)[:, 0], cosine_dictionary(4, 20)
    learned = learn_dictionary(signals, start, alpha=0.1)
    np.random.seed(7)
    torch.manual_seed(7)
    assert torch.equal(learned, learn_dictionary(signals, start, alpha=0.1))
    assert (learn_dictionary(signals, start, alpha=0.3) - learned).abs().max() > 1e-3


def test_atoms_without_a_use_stay_normalized() -> None:
    start = cosine_dictionary(4, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned = learn_dictionary(torch.zeros(30, 16), start, alpha=0.1)
    torch.testing.assert_close(learned.norm(dim=1), torch.ones(20))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ImportError, match=r"pip install 'fastmri-ufloss\[classical\]'"):
        learn_dictionary(torch.randn(30, 16), cosine_dictionary(4, 20), alpha=0.1)
