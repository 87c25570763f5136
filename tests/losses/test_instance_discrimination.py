import pytest
import torch
import torch.nn.functional as F

from fastmri_ufloss.losses.instance_discrimination import MemoryBank, instance_discrimination_loss


def make(num_patches=50, batch=6, num_features=8):
    torch.manual_seed(0)
    bank = MemoryBank(num_patches, num_features).double()
    features = F.normalize(torch.randn(batch, num_features, dtype=torch.float64), dim=1)
    return bank, features, torch.randint(num_patches, (batch,))


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.001])
@pytest.mark.parametrize("chunk_size", [1, 7, 50, 65536])
def test_value_and_gradient_are_those_of_cross_entropy(temperature, chunk_size):
    bank, features, indices = make()
    features.requires_grad_()
    options = {"temperature": temperature, "chunk_size": chunk_size}
    value = instance_discrimination_loss(features, indices, bank, **options)
    expected = F.cross_entropy(features @ bank.vectors.T / temperature, indices)
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(3 * value, features)
    (expected_gradient,) = torch.autograd.grad(3 * expected, features)
    torch.testing.assert_close(gradient, expected_gradient)


def test_gradcheck():
    bank, features, indices = make(batch=3)
    options = {"temperature": 0.2, "chunk_size": 7}
    assert torch.autograd.gradcheck(
        lambda f: instance_discrimination_loss(f, indices, bank, **options), features.requires_grad_()
    )


def test_low_temperature_is_finite_in_float32():
    bank, features, indices = make()
    value = instance_discrimination_loss(-features.float(), indices, bank.float(), temperature=1e-4)
    assert bool(value.isfinite())


def test_temperature_one_starts_near_ln_n():
    bank, features, indices = make(num_patches=1000, num_features=64)
    value = instance_discrimination_loss(features, indices, bank, temperature=1.0)
    assert abs(float(value) - 6.9) < 0.3


def test_the_bank_may_change_between_forward_and_backward():
    bank, features, indices = make()
    features.requires_grad_()
    value = instance_discrimination_loss(features, indices, bank, temperature=0.1)
    (expected,) = torch.autograd.grad(value, features, retain_graph=True)
    bank.update(indices, features)
    (gradient,) = torch.autograd.grad(value, features)
    assert torch.equal(gradient, expected)


def test_full_precision_under_autocast():
    bank, features, indices = make()
    bank, features = bank.float(), features.float()
    expected = instance_discrimination_loss(features, indices, bank, temperature=0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = instance_discrimination_loss(features.bfloat16(), indices, bank, temperature=0.07)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0.02, atol=0)


def test_bank_depends_on_the_seed_only_and_holds_unit_rows():
    torch.manual_seed(1)
    first = MemoryBank(20, 4).vectors
    torch.manual_seed(2)
    assert torch.equal(MemoryBank(20, 4).vectors, first)
    assert not torch.equal(MemoryBank(20, 4, seed=1).vectors, first)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(20))


def test_update_overwrites_its_rows_only():
    bank = MemoryBank(10, 4)
    before = bank.vectors.clone()
    features = torch.randn(3, 4, requires_grad=True)
    bank.update(torch.tensor([7, 2, 7]), features)
    expected = F.normalize(features.detach(), dim=1)
    torch.testing.assert_close(bank.vectors[2], expected[1])
    torch.testing.assert_close(bank.vectors[7], expected[2])
    others = [i for i in range(10) if i not in (2, 7)]
    assert torch.equal(bank.vectors[others], before[others])
    assert not bank.vectors.requires_grad
    assert list(bank.state_dict()) == ["vectors"]


def test_bad_input():
    bank, features, indices = make()
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        instance_discrimination_loss(features, indices, bank, temperature=0.0)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        instance_discrimination_loss(features, indices, bank, temperature=1.0, chunk_size=0)
    for wrong in (-1, 50):
        indices[0] = wrong
        with pytest.raises(ValueError, match=r"indices must be in 0 \.\. 49"):
            instance_discrimination_loss(features, indices, bank, temperature=1.0)
        with pytest.raises(ValueError, match=r"indices must be in 0 \.\. 49"):
            bank.update(indices, features)
    with pytest.raises(ValueError, match="indices must be int64"):
        bank.update(indices.float(), features)
    with pytest.raises(ValueError, match=r"features must have shape \(batch, 8\)"):
        bank.update(indices, features[:, :4])
    with pytest.raises(ValueError, match="num_patches must be at least 1, got 0"):
        MemoryBank(0, 4)
