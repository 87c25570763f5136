import torch
from torch.utils.data import Dataset

from fastmri_ufloss.data.loading import EqualSizeBatches, ResumableLoader, ordered_batches

SIZES = [(4, 10)] * 7 + [(4, 12)] * 5


class Keys(Dataset):
    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        return torch.tensor(key)


def test_each_epoch_holds_every_sample_once_in_batches_of_one_size() -> None:
    sampler = EqualSizeBatches(SIZES, batch_size=2)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 7
        assert all(len({SIZES[i] for _, i in batch}) == 1 for batch in batches)
        assert sorted(i for batch in batches for _, i in batch) == list(range(12))
        assert {e for batch in batches for e, _ in batch} == {epoch}


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list:
        sampler = EqualSizeBatches(SIZES, batch_size=2, seed=seed)
        sampler.set_epoch(epoch)
        return [[i for _, i in batch] for batch in sampler]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)


def test_processes_share_the_batches_of_one() -> None:
    one = list(EqualSizeBatches(SIZES, batch_size=4))
    parts = [list(EqualSizeBatches(SIZES, batch_size=2, rank=rank, world_size=2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(one)
    for whole, first, second in zip(one, *parts, strict=True):
        assert len(first) == len(second)
        assert (first + second)[: len(whole)] == whole


def test_loader_goes_on_where_it_was() -> None:
    def loader(workers: int = 0) -> ResumableLoader:
        return ResumableLoader(Keys(), batch_sampler=EqualSizeBatches(SIZES, batch_size=2), num_workers=workers)

    whole = [batch.tolist() for batch in loader()]
    for workers in (0, 1):
        first = loader(workers)
        seen = []
        for batch in first:
            seen.append(batch.tolist())
            if len(seen) == 3:
                break
        second = loader(workers)
        second.load_state_dict(first.state_dict())
        rest = [batch.tolist() for batch in second]
        assert seen + rest == whole
        # the next epoch is whole again
        second.batch_sampler.set_epoch(1)
        assert len(list(second)) == len(whole)


def test_state_of_a_full_epoch_starts_the_next_from_its_beginning() -> None:
    loader = ResumableLoader(Keys(), batch_sampler=EqualSizeBatches(SIZES, batch_size=2))
    list(loader)
    again = ResumableLoader(Keys(), batch_sampler=EqualSizeBatches(SIZES, batch_size=2))
    again.load_state_dict(loader.state_dict())
    assert len(list(again)) == len(loader)


def test_ordered_batches_are_cut_where_the_size_changes() -> None:
    assert ordered_batches(range(12), SIZES, batch_size=3) == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [7, 8, 9],
        [10, 11],
    ]
