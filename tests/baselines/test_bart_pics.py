from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from helpers import column_mask, smooth_maps

from fastmri_ufloss.baselines import has_bart, pics
from fastmri_ufloss.mri import combine_sets, estimate_sens_maps, sens_expand, sens_reduce

bart_pics = partial(pics, solver="bart")
needs_bart = pytest.mark.skipif(not has_bart(), reason="BART is not installed")


def scan(rows: int, cols: int, mask: torch.Tensor, *, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Two ellipses, one of them with another phase, and a small bright one, behind four coils."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    image = ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1) + 0.5j * ((y / 0.3 - 0.5) ** 2 + (x / 0.3) ** 2 < 1)
    image = image + 9 * ((y + 0.4) ** 2 + x**2 < 0.01)
    maps = smooth_maps(len(mask), 4, rows, cols)
    kspace = sens_expand(torch.view_as_real(image.to(torch.complex64).expand(len(mask), 1, -1, -1)), maps)
    kspace = kspace + noise * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(1))
    return kspace * mask, maps


def error(image: torch.Tensor, reference: torch.Tensor) -> float:
    return float((image - reference).norm() / reference.norm())


@needs_bart
@pytest.mark.parametrize("regularizer", ["wavelet", "total_variation"])
def test_it_agrees_with_sigpy(regularizer: Literal["wavelet", "total_variation"]) -> None:
    """Rows and columns differ in number, and the unit is small: neither axes nor scale may be mixed up."""
    mask = column_mask(1, 48, every=3, center=12)
    kspace, maps = scan(60, 48, mask)
    ours = pics(kspace, mask, maps, regularizer=regularizer, lam=0.01, num_iterations=300)
    theirs = 1e5 * bart_pics(1e-5 * kspace, mask, maps, regularizer=regularizer, lam=0.01, num_iterations=300)
    assert theirs.shape == (1, 60, 48) and theirs.dtype == torch.complex64
    assert error(theirs, ours) < 0.03
    for lam in (0.001, 0.1):  # the weight means the same
        other = bart_pics(kspace, mask, maps, regularizer=regularizer, lam=lam, num_iterations=300)
        assert error(other, ours) > 1.5 * error(theirs, ours)
    assert not torch.equal(bart_pics(kspace, mask, maps, regularizer=regularizer, num_iterations=3), theirs)


@needs_bart
@pytest.mark.parametrize("regularizer", ["wavelet", "total_variation"])
def test_two_sets_agree_with_sigpy(regularizer: Literal["wavelet", "total_variation"]) -> None:
    """Of an object that is larger than the field of view: every second row of its k-space."""
    mask = column_mask(1, 48, every=2, center=20)
    kspace, _ = scan(120, 48, torch.ones_like(mask), noise=0.003)
    folded = kspace[:, :, ::2].contiguous()
    maps = estimate_sens_maps(folded, 20, num_maps=2)
    assert 0.05 < (maps[:, 1] != 0).any(dim=1).float().mean() < 0.9
    settings = {"regularizer": regularizer, "lam": 0.003, "num_iterations": 300}
    ours, theirs = (pics(folded * mask, mask, maps, solver=solver, **settings) for solver in ("sigpy", "bart"))
    assert ours.shape == theirs.shape == (1, 2, 60, 48)
    assert error(theirs, ours) < 0.01
    full, one = (
        combine_sets(pics(samples, points, m, **settings)).abs()
        for samples, points, m in (
            (folded, torch.ones_like(mask), maps),
            (folded * mask, mask, maps[:, 0]),
        )
    )
    assert error(combine_sets(ours).abs(), full) < 0.7 * error(one, full)


@needs_bart
def test_an_acquired_zero_is_a_sample() -> None:
    """All of k-space was acquired, most of it is zero: the image must agree, although others are sparser."""
    kspace, maps = scan(24, 24, column_mask(1, 24, center=6))
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    every = torch.ones(1, 1, 1, 24, 1)
    assert error(bart_pics(kspace, every, maps, lam=1e-4), zero_filled) < 0.01
    assert error(bart_pics(kspace, column_mask(1, 24, center=6), maps, lam=1e-4), zero_filled) > 0.1


@needs_bart
def test_a_batch_is_its_samples_each_time_the_same() -> None:
    mask = torch.cat([column_mask(1, 20, center=6), column_mask(1, 20, every=2, center=6)])
    kspace, maps = scan(24, 20, mask)
    kspace[1] *= 100
    together = bart_pics(kspace, mask, maps, num_iterations=5)
    for i in range(2):
        alone = bart_pics(kspace[i : i + 1], mask[i : i + 1], maps[i : i + 1], num_iterations=5)
        assert torch.equal(together[i : i + 1], alone)
    maps[..., :9, 15:, :] = 0
    image = bart_pics(kspace, mask, maps, num_iterations=5)
    assert torch.equal(image == 0, (maps == 0).all(dim=-1).all(dim=1))
    kspace[0] = 0
    assert not bart_pics(kspace, mask, maps, num_iterations=5)[0].any()


def test_what_bart_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = column_mask(1, 20, center=6)
    kspace, maps = scan(24, 20, mask)
    (tmp_path / "bart").write_text("#!/bin/sh\necho 'ERROR: out of memory' >&2\nexit 3\n")
    (tmp_path / "bart").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ChildProcessError, match=r"bart pics .* failed \(exit code 3\): ERROR: out of memory"):
        bart_pics(kspace, mask, maps)
    (tmp_path / "bart").write_text("#!/bin/sh\nexit 0\n")  # without a result
    with pytest.raises(ChildProcessError, match="failed"):
        bart_pics(kspace, mask, maps)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert not has_bart()
    with pytest.raises(FileNotFoundError, match="install BART"):
        bart_pics(kspace, mask, maps)


def test_bad_options_are_named() -> None:
    mask = column_mask(1, 20, center=6)
    kspace, maps = scan(24, 20, mask)
    with pytest.raises(ValueError, match="lam must be"):
        bart_pics(kspace, mask, maps, lam=-1)
    with pytest.raises(ValueError, match="num_iterations must be"):
        bart_pics(kspace, mask, maps, num_iterations=0)
