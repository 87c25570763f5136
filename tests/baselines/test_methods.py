import inspect
from functools import partial

import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps

from fastmri_ufloss.baselines import CLASSICAL_METHODS, pics, read_weights
from fastmri_ufloss.mri import cg_sense

WITH_WEIGHT = [name for name, method in CLASSICAL_METHODS.items() if method.bounds is not None]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = column_mask(1, 24, center=8)
    kspace = torch.view_as_real(randn_complex(1, 3, 20, 24)) * mask
    return kspace, mask, smooth_maps(1, 3, 20, 24)


@pytest.mark.parametrize("name", WITH_WEIGHT)
def test_a_weight_is_used_and_its_start_is_the_default(name: str) -> None:
    method = CLASSICAL_METHODS[name]
    if method.missing:
        pytest.skip(method.missing)
    assert method.start is not None and method.bounds is not None
    assert method.bounds[0] < method.start < method.bounds[1]
    quick: dict[str, int] = {"num_iterations": 20}
    if name == "dlmri":
        quick = {"num_iterations": 2, "num_atoms": 20, "sparsity": 3, "patch_size": 4}
    method = method._replace(function=partial(method.function, **quick))
    default = method(*inputs())
    assert default.shape == (1, 20, 24) and default.is_complex()
    assert torch.equal(default, method(*inputs(), method.start))
    # at its ends the range of a search has images that differ much
    low, high = (method(*inputs(), bound) for bound in method.bounds)
    assert (low - high).norm() > 0.03 * low.norm()


def test_names_mean_what_they_say() -> None:
    kspace, mask, maps = inputs()
    expected = {
        "cg_sense": cg_sense(kspace, mask, maps, lam=0.1),
        "pics_wavelet": pics(kspace, mask, maps, lam=0.1, regularizer="wavelet"),
        "pics_tv": pics(kspace, mask, maps, lam=0.1, regularizer="total_variation"),
    }
    for name, image in expected.items():
        torch.testing.assert_close(CLASSICAL_METHODS[name](kspace, mask, maps, 0.1), image)
    torch.testing.assert_close(
        CLASSICAL_METHODS["zero_filled"](kspace, mask, maps),
        cg_sense(kspace, torch.ones_like(mask), maps, lam=0, num_iterations=1),
    )
    assert inspect.signature(pics).parameters["lam"].default == CLASSICAL_METHODS["pics_tv"].start
    assert len({method.title for method in CLASSICAL_METHODS.values()}) == len(CLASSICAL_METHODS)


def test_wrong_weights_are_named() -> None:
    with pytest.raises(ValueError, match="zero-filled has no weight"):
        CLASSICAL_METHODS["zero_filled"](*inputs(), 0.1)
    for item, message in (
        ("pics=0.1", "methods pics_tv, zero_filled, dlmri, got 'pics'"),
        ("zero_filled=0.1", "methods that have one, got zero_filled=0.1"),
        ("pics_tv=-1", "weight of 'pics_tv' must be a number >= 0, got .?-1"),
        ("pics_tv=nan", "must be a number >= 0"),
        ("pics_tv=inf", "must be a number >= 0"),
        ("dlmri=0", "weight of dlmri must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            read_weights([item], ["pics_tv", "zero_filled", "dlmri"])


def test_weights_are_read() -> None:
    assert read_weights([], ["pics_tv"]) == {}
    assert read_weights(["pics_tv=0.004", "dlmri=1e-2"], ["dlmri", "pics_tv"]) == {"pics_tv": 0.004, "dlmri": 0.01}
    for items, message in (
        (["pics_tv"], "form METHOD=VALUE, got 'pics_tv'"),
        (["pics_tv=0:1@2-5"], "form METHOD=VALUE"),
        (["pics_tv=much"], "weight of 'pics_tv' must be a number"),
        (["pics_tv=1", "pics_tv=2"], "'pics_tv' is given twice"),
        (["cg_sense=1"], "weights must be of the methods pics_tv"),
    ):
        with pytest.raises(ValueError, match=message):
            read_weights(items, ["pics_tv"])


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = {name: method.missing for name, method in CLASSICAL_METHODS.items() if method.missing}
    assert set(missing) == {"bart_wavelet", "bart_tv", "dlmri"}
    assert "install BART" in missing["bart_tv"] and "pip install" in missing["dlmri"]
