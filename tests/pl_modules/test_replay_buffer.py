"""The replay buffer on a scripted sequence, its random state, sizes that differ."""

import pytest
import torch
from torch import Tensor

from fastmri_ufloss.pl_modules.adversarial_module import ReplayBuffer


def images(*values: float, side: int = 2) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, side, side).clone()


def values(batch: Tensor) -> list[float]:
    return batch[:, 0, 0, 0].tolist()


def stored(buffer: ReplayBuffer) -> list[float]:
    return [float(image[0, 0, 0]) for image in buffer.images]


def test_it_fills_first_and_then_swaps() -> None:
    buffer, generator = ReplayBuffer(3, probability=1.0), torch.Generator().manual_seed(0)
    assert values(buffer(images(1, 2), generator)) == [1, 2]
    assert values(buffer(images(3), generator)) == [3]
    assert stored(buffer) == [1, 2, 3]
    (old,) = values(buffer(images(4), generator))
    assert old in (1, 2, 3)
    assert sorted(stored(buffer)) == sorted({1, 2, 3, 4} - {old})
    # within a batch, image by image: what one puts in, the next may get
    used = values(buffer(images(5, 6, 7, 8), generator))
    assert sorted([*used, *stored(buffer)]) == sorted([*({1, 2, 3, 4} - {old}), 5, 6, 7, 8])


def test_scripted_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = ReplayBuffer(2, probability=0.5)
    draws, places = iter([0.7, 0.2, 0.49, 0.5]), iter([1, 0])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(next(draws)))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(places)))
    generator = torch.Generator()
    assert values(buffer(images(1, 2), generator)) == [1, 2]
    assert values(buffer(images(3), generator)) == [3]  # 0.7: used, and not stored
    assert stored(buffer) == [1, 2]
    assert values(buffer(images(4), generator)) == [2]  # 0.2: in the place of the second
    assert stored(buffer) == [1, 4]
    assert values(buffer(images(5, 6), generator)) == [1, 6]
    assert stored(buffer) == [5, 4]


def test_share_of_old_images_is_the_probability() -> None:
    buffer, generator = ReplayBuffer(10, probability=0.3), torch.Generator().manual_seed(0)
    buffer(images(*range(10)), generator)
    new = torch.arange(10.0, 2010.0)
    used = torch.tensor(values(buffer(images(*new.tolist()), generator)))
    assert float((used != new).float().mean()) == pytest.approx(0.3, abs=0.04)


def test_sizes_share_the_buffer_and_never_mix() -> None:
    buffer, generator = ReplayBuffer(4, probability=1.0), torch.Generator().manual_seed(0)
    buffer(images(1, 2, 3, 4), generator)
    assert values(buffer(images(5, side=3), generator)) == [5]  # there was none of its size
    assert len(buffer.images) == 4 and sum(image.shape[-1] == 3 for image in buffer.images) == 1
    assert buffer(images(6, side=3), generator).shape == (1, 1, 3, 3)
    for number in range(20):
        assert buffer(images(number), generator).shape == (1, 1, 2, 2)


def test_no_buffer_and_no_gradient() -> None:
    batch = images(1, 2).requires_grad_()
    for buffer in (ReplayBuffer(0), ReplayBuffer(5)):
        used = buffer(batch * 2, torch.Generator())
        assert values(used) == [2, 4] and not used.requires_grad
    assert ReplayBuffer(0).images == []


def test_stored_images_are_copies() -> None:
    buffer, batch = ReplayBuffer(1, probability=1.0), images(1)
    buffer(batch, torch.Generator())
    batch.zero_()
    assert stored(buffer) == [1]


def test_state_goes_on_as_without_interruption() -> None:
    whole, generator = ReplayBuffer(3), torch.Generator().manual_seed(1)
    expected = [values(whole(images(i, i + 0.5), generator)) for i in range(20)]
    first, generator = ReplayBuffer(3), torch.Generator().manual_seed(1)
    found = [values(first(images(i, i + 0.5), generator)) for i in range(9)]
    second, other = ReplayBuffer(3), torch.Generator()
    second.load_state_dict(first.state_dict())
    other.set_state(generator.get_state())
    found += [values(second(images(i, i + 0.5), other)) for i in range(9, 20)]
    assert found == expected


@pytest.mark.parametrize(("size", "probability"), [(-1, 0.5), (3, 1.5), (3, -0.1), (3, float("nan"))])
def test_bad_arguments(size: int, probability: float) -> None:
    with pytest.raises(ValueError, match=r"(size|probability) must be"):
        ReplayBuffer(size, probability=probability)
