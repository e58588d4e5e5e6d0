"""Parts that are read ahead: each once and in order, no further ahead than one, and mistakes are told."""

import threading

import pytest
import torch

from ancestral.batch import Batch
from ancestral.pipeline import computed, part_size

CPU = torch.device("cpu")


def slices(n, size):
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def doubled(part):
    return {"x": 2 * part.x, "labels": part.labels}


def test_all_parts_are_computed_in_order():
    batch = Batch(torch.randn(23, 3), labels=torch.arange(23))
    for size in (1, 5, 23, 100):
        parts = list(computed(batch, slices(23, size), doubled, CPU))
        assert torch.equal(torch.cat([part["x"] for part in parts]), 2 * batch.x)
        assert torch.equal(torch.cat([part["labels"] for part in parts]), batch.labels)
    assert list(computed(batch, [], doubled, CPU)) == []


def test_one_part_is_read_ahead_and_its_reader_ends_with_the_work():
    read, batch = [], Batch(torch.arange(10), labels=torch.arange(10))

    class Watched(Batch):
        def __getitem__(self, index):
            read.append(index.start)
            return super().__getitem__(index)

    parts = computed(Watched(batch.x, batch.labels), slices(10, 2), doubled, CPU)
    for k, part in enumerate(parts):
        assert part["labels"].tolist() == [2 * k, 2 * k + 1]
        assert max(read) <= 2 * (k + 1)
        if k == 2:
            break
    parts.close()
    assert max(read) < 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_what_goes_wrong_while_reading_is_raised():
    class Broken(Batch):
        def __getitem__(self, index):
            if index.start:
                raise OSError("disk")
            return super().__getitem__(index)

    parts = computed(Broken(torch.arange(4), torch.arange(4)), slices(4, 2), doubled, CPU)
    assert next(parts)["x"].tolist() == [0, 2]
    with pytest.raises(OSError, match="disk"):
        next(parts)


@pytest.mark.parametrize("most", [50, 250, 256])
@pytest.mark.parametrize("dims", [1, 3 * 128**2, 3 * 300**2, 3 * 1024**2, 10**8])
def test_parts_divide_the_largest_and_hold_so_many_values(dims, most):
    size = part_size(dims, most)
    assert most % size == 0
    assert size == 1 or size * dims <= 2**24
    larger = [n for n in range(size + 1, most + 1) if most % n == 0]
    assert not larger or larger[0] * dims > 2**24
