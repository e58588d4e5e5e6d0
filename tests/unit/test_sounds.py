"""Recordings of differing length: padding, windows, random crops, the batches of a training; levels."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from ancestral.batch import Batch
from ancestral.companding import to_amplitudes, to_levels
from ancestral.data import Sounds
from ancestral.media.sound import amplitudes
from ancestral.spec import Spec
from ancestral.training.batches import Batches

LENGTHS = (5, 12, 3, 1, 7)
SILENCE = 200
CPU = torch.device("cpu")


def sounds(lengths=LENGTHS, channels=1, labels=True):
    """Recordings whose samples tell where in the store they stand."""
    total = sum(lengths)
    samples = torch.arange(total * channels, dtype=torch.uint8).view(total, channels)
    own = torch.arange(len(lengths)) if labels else None
    return Sounds(samples, torch.tensor(lengths), own, silence=SILENCE)


def own_samples(batch):
    """What of each example is no padding; all the rest is silence."""
    for x, length in zip(batch.x, batch.lengths.tolist(), strict=True):
        assert (x[:, length:] == SILENCE).all()
    return [x[:, :n].tolist() for x, n in zip(batch.x, batch.lengths.tolist(), strict=True)]


# levels


@pytest.mark.parametrize("encoding", ["mu-law", "linear"])
@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256, 1000, 2**16])
def test_levels_are_what_their_amplitudes_are_encoded_as(encoding, levels):
    spec = Spec(shape=(1, 1), levels=levels, rate=8000, encoding=encoding)
    every = np.arange(levels)
    assert to_levels(to_amplitudes(every, spec), spec).tolist() == every.tolist()
    assert to_levels(np.zeros(1), spec) == levels // 2
    assert to_levels(np.array([-2.0, -1.0, 1.0, 2.0]), spec).tolist() == [0, 0, levels - 1, levels - 1]
    assert to_levels(np.zeros(1), spec).dtype == torch.empty(0, dtype=spec.dtype).numpy().dtype
    drawn = amplitudes(spec, torch.arange(levels).view(1, 1, levels))
    assert np.array_equal(drawn[0, 0], to_amplitudes(every, spec))


def test_mu_law_is_the_published_one():
    y = np.linspace(-1, 1, 4001)
    spec = Spec(shape=(1, 1), rate=8000, encoding="mu-law")
    f = [math.copysign(math.log(1 + 255 * abs(v)) / math.log(256), v) for v in y]
    assert to_levels(y, spec).tolist() == [math.floor((v + 1) / 2 * 255 + 0.5) for v in f]


def test_sixteen_linear_bits_are_those_of_a_file():
    file = np.arange(-(2**15), 2**15)
    spec = Spec(shape=(1, 1), levels=2**16, rate=8000, encoding="linear")
    assert np.array_equal(to_levels((file / 2**15).astype(np.float32), spec), file + 2**15)


# whole recordings


@pytest.mark.parametrize(
    "index",
    [slice(None), slice(1, 4), slice(0, 0), torch.tensor([3, 1, 1]), torch.tensor([True] + [False] * 4)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_recordings_are_padded_to_the_longest_of_those_that_are_taken(index, channels):
    store = sounds(channels=channels)
    batch, rows = store[index], torch.arange(5)[index].tolist()
    assert batch.x.shape == (len(rows), channels, max([LENGTHS[i] for i in rows], default=1))
    assert batch.lengths.tolist() == [LENGTHS[i] for i in rows]
    assert batch.labels.tolist() == rows
    begins = [sum(LENGTHS[:i]) for i in rows]
    expected = [store.samples[b : b + LENGTHS[i]].T.tolist() for i, b in zip(rows, begins, strict=True)]
    assert own_samples(batch) == expected


def test_parts_of_a_store_share_its_samples_and_join_without_a_copy():
    store = sounds()
    first, last = store.only(slice(0, 2)), store.only(torch.tensor([4]))
    joined = Sounds.cat([last, first])
    assert joined.samples is store.samples
    assert own_samples(joined[:]) == own_samples(store[torch.tensor([4, 0, 1])])
    assert joined.total == 7 + 5 + 12
    other = sounds((2, 4), labels=False)
    mixed = Sounds.cat([last, other])
    assert mixed.labels is None
    assert own_samples(mixed[:]) == own_samples(last[:]) + own_samples(other[:])
    assert [part.flatten().tolist() for part in mixed.recordings()] == [
        part[0] for part in own_samples(mixed[:])
    ]


def test_some_recordings_are_evenly_from_all():
    assert sounds().some(2).labels.tolist() == [0, 2]
    assert len(sounds().some(99)) == 5


# windows


@pytest.mark.parametrize("length", [1, 3, 4, 12, 50])
def test_windows_cover_every_sample_once(length):
    crops = sounds().crops(length)
    assert len(crops) == sum(math.ceil(n / length) for n in LENGTHS)
    batch = crops[:]
    assert batch.x.shape == (len(crops), 1, length)
    assert [s for part in own_samples(batch) for s in part[0]] == list(range(sum(LENGTHS)))
    assert batch.labels.tolist() == crops.labels.tolist()
    assert Counter(batch.labels.tolist()) == {i: math.ceil(n / length) for i, n in enumerate(LENGTHS)}
    some = torch.tensor([len(crops) - 1, 0])
    assert own_samples(crops[some]) == [own_samples(batch)[-1], own_samples(batch)[0]]
    assert own_samples(crops.to("cpu")[some]) == own_samples(crops[some])


def test_crops_lie_anywhere_in_their_recording_and_nowhere_else():
    crops, length = sounds().crops(4), 4
    generator = torch.Generator().manual_seed(0)
    windows = torch.arange(len(crops)).repeat_interleave(400)
    batch = crops.drawn(windows, generator)
    assert torch.equal(batch.labels, crops.labels[windows])
    begins = {i: Counter() for i in range(5)}
    for i, part in zip(batch.labels.tolist(), own_samples(batch), strict=True):
        first = part[0][0] - sum(LENGTHS[:i])
        assert part[0] == list(range(part[0][0], part[0][0] + min(length, LENGTHS[i])))
        begins[i][first] += 1
    for i, found in begins.items():
        places = max(1, LENGTHS[i] - length + 1)
        assert set(found) == set(range(places))
        n = sum(found.values())
        # six standard deviations of a count of n draws with probability 1 / places
        assert all(abs(c - n / places) < 6 * math.sqrt(n / places) for c in found.values())


def test_the_same_generator_draws_the_same_crops():
    crops = sounds().crops(3)
    a, b, other = (crops.drawn(torch.arange(8), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x, other.x)


# batches of a training


def test_batches_of_windows_depend_on_seed_stage_and_place_alone():
    def batches(seed=0, stage="training", **parts):
        return Batches(sounds().crops(3), 4, seed=seed, stage=stage, device=CPU, **parts)

    one, two = batches(), batches()
    two[5], two[2]  # in any order
    assert all(torch.equal(one[k].x, two[k].x) for k in (9, 0, 5))
    assert not all(torch.equal(one[k].x, batches(seed=1)[k].x) for k in range(3))
    assert not all(torch.equal(one[k].x, batches(stage="prior")[k].x) for k in range(3))
    labels = torch.cat([batches(rank=rank, processes=2)[3].labels for rank in range(2)])
    assert torch.equal(labels, one[3].labels)
    assert one[0].lengths.shape == (4,)


def test_batches_of_other_data_are_indexed_as_they_lie():
    x = torch.arange(10)
    batches = Batches(Batch(x), 4, seed=0, stage="training", device=CPU)
    assert torch.equal(batches[2].x, x[batches.indices(2)])
    assert batches[2].lengths is None
