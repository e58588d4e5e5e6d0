"""Recordings of differing length in one store, and the windows of one length that a training sees of them."""

from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor

from ancestral.batch import Batch, evenly

_FINE = 2**62
"""Integers that a place is drawn from: with as many, each place is as likely as the others."""


class Sounds:
    """N recordings, each of a length of its own, of which batches are padded copies.

    Args:
        samples: all samples, one recording after another, ``(total, C)``: in memory or mapped; never write to
            it.
        lengths: samples of each recording, ``(N,)`` int64, at least 1.
        labels: classes ``(N,)``; None where there are no labels.
        silence: the level that padding holds.
        starts: where in the store each recording begins, ``(N,)`` int64. Without, they follow each other;
            with, the store may hold others too, as that of all splits does.

    >>> samples = torch.tensor([[1], [2], [3], [4], [5]], dtype=torch.uint8)
    >>> sounds = Sounds(samples, torch.tensor([3, 2]), silence=128)
    >>> batch = sounds[:]
    >>> batch.x.tolist(), batch.lengths.tolist()
    ([[[1, 2, 3]], [[4, 5, 128]]], [3, 2])
    """

    def __init__(
        self,
        samples: Tensor,
        lengths: Tensor,
        labels: Tensor | None = None,
        silence: int = 0,
        starts: Tensor | None = None,
    ) -> None:
        self.samples, self.lengths, self.labels, self.silence = samples, lengths, labels, silence
        self.starts = lengths.cumsum(0) - lengths if starts is None else starts

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def total(self) -> int:
        """Samples of all recordings together."""
        return int(self.lengths.sum())

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """Some recordings ``(n, C, T)``, padded to the longest of them; ``lengths`` says from where on."""
        some = self.only(index)
        longest = int(some.lengths.max()) if len(some) else 1
        return Batch(_read(self, some.starts, some.lengths, longest), some.labels, lengths=some.lengths)

    def only(self, index: slice | Tensor) -> "Sounds":
        """Some recordings of the same store."""
        labels = None if self.labels is None else self.labels[index]
        return Sounds(self.samples, self.lengths[index], labels, self.silence, self.starts[index])

    @property
    def counts(self) -> Tensor:
        """How many values each recording has, ``(N,)``."""
        return self.lengths * self.samples.shape[1]

    def without_labels(self) -> "Sounds":
        """The same recordings of no class."""
        return Sounds(self.samples, self.lengths, None, self.silence, self.starts)

    def some(self, n: int) -> Batch:
        """At most ``n`` recordings, evenly from all of them, padded to the longest."""
        return self[evenly(n, len(self))]

    def recordings(self) -> Iterator[Tensor]:
        """One recording after another, ``(T, C)``, as it lies in the store."""
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield self.samples[start : start + length]

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name; the samples may be those of other splits too."""
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"samples": self.samples, "lengths": self.lengths, "starts": self.starts} | labels

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Sounds":
        """The recordings on a device."""
        moved = {n: tensor.to(device, non_blocking=non_blocking) for n, tensor in self.tensors().items()}
        return Sounds(**moved, silence=self.silence)

    def crops(self, length: int) -> "Crops":
        """The windows of ``length`` samples that training and validation see."""
        return Crops(self, length)

    @classmethod
    def cat(cls, parts: Iterable["Sounds"]) -> "Sounds":
        """One after another; a store that they share is not copied, and labels are kept that all have."""
        several = list(parts)
        labels = [part.labels for part in several if part.labels is not None]
        first, shared = several[0], all(part.samples is several[0].samples for part in several)
        begins = [0 if shared else sum(len(p.samples) for p in several[:i]) for i in range(len(several))]
        return cls(
            first.samples if shared else torch.cat([part.samples for part in several]),
            torch.cat([part.lengths for part in several]),
            torch.cat(labels) if len(labels) == len(several) else None,
            first.silence,
            torch.cat([part.starts + begin for part, begin in zip(several, begins, strict=True)]),
        )


class Crops:
    """Recordings as windows of ``length`` samples, ``(n, C, length)``; shorter ones are padded.

    Example i is the i-th window: they begin at multiples of ``length`` within their recording, so that a long
    recording has as many as it takes to cover it. ``drawn`` takes them from anywhere.

    >>> samples = torch.arange(7, dtype=torch.uint8)[:, None]
    >>> crops = Sounds(samples, torch.tensor([5, 2]), silence=99).crops(3)
    >>> len(crops), crops[:].x.tolist(), crops[:].lengths.tolist()
    (3, [[[0, 1, 2]], [[3, 4, 99]], [[5, 6, 99]]], [3, 2, 2])
    """

    def __init__(self, sounds: Sounds, length: int) -> None:
        self.sounds, self.length = sounds, length
        counts = (sounds.lengths + length - 1) // length
        self._owner = torch.arange(len(sounds), device=counts.device).repeat_interleave(counts)
        """The recording of each window, ``(len,)``."""
        first = (counts.cumsum(0) - counts)[self._owner]
        self._offset = (torch.arange(len(self._owner), device=counts.device) - first) * length

    def __len__(self) -> int:
        return len(self._owner)

    @property
    def labels(self) -> Tensor | None:
        """The class of each window's recording, ``(len,)``; None where there are no labels."""
        return None if self.sounds.labels is None else self.sounds.labels[self._owner]

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """Some windows, at their places."""
        return self._windows(self._owner[index], self._offset[index])

    def some(self, n: int) -> Batch:
        """At most ``n`` windows, evenly from all of them."""
        return self[evenly(n, len(self))]

    def drawn(self, indices: Tensor, generator: Generator) -> Batch:
        """For each window one of its recording that begins at a random place, a pure function of both.

        Each place is as likely from which a window lies within the recording; a recording that is shorter
        than a window is taken whole.

        Args:
            indices: windows ``(n,)``.
            generator: source of all randomness; may live on another device than the recordings.
        """
        owner = self._owner[indices]
        room = (self.sounds.lengths[owner] - self.length).clamp(min=0)
        draws = torch.randint(_FINE, (len(owner),), generator=generator, device=generator.device)
        return self._windows(owner, draws.to(room.device) % (room + 1))

    def _windows(self, owner: Tensor, offset: Tensor) -> Batch:
        sounds = self.sounds
        lengths = (sounds.lengths[owner] - offset).clamp(max=self.length)
        x = _read(sounds, sounds.starts[owner] + offset, lengths, self.length)
        return Batch(x, None if sounds.labels is None else sounds.labels[owner], lengths=lengths)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        return self.sounds.tensors()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Crops":
        """The windows on a device."""
        return Crops(self.sounds.to(device, non_blocking=non_blocking), self.length)


def _read(sounds: Sounds, starts: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """The samples from ``starts`` on, ``(n, C, longest)``: ``lengths`` of them, then silence."""
    steps = torch.arange(longest, device=starts.device)
    there = steps < lengths[:, None]
    places = torch.where(there, starts[:, None] + steps, 0)
    x = sounds.samples[places].masked_fill_(~there[..., None], sounds.silence)
    return x.transpose(1, 2)
