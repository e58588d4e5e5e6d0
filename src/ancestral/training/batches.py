"""Batch k of a stage, as a pure function of (seed, stage, k)."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from ancestral.batch import Batch, Examples
from ancestral.data.sounds import Crops
from ancestral.training.randomness import derive

_RESIDENT_BYTES = 4 << 30
"""Data up to this size move to the GPU once; larger ones are sent batch by batch."""


class Batches:
    """Shuffled batches of data that are indexed, never copied.

    Epoch follows epoch without a break, each in a new order.

    Args:
        data: the examples of a stage: tensors in memory or memory maps. Of windows of sounds, each batch has
            what is drawn from their recordings.
        size: examples of a batch, over all processes.
        seed: what the order depends on, with ``stage``.
        stage: name of the stage.
        device: where batches are wanted.
        rank: this process; it gets the ``rank``-th of ``processes`` equal parts of each batch.
        processes: number of processes.
        augment: changes the examples of a batch, given a generator.

    >>> place = {"stage": "training", "device": torch.device("cpu")}
    >>> batches = Batches(Batch(torch.arange(6)), 3, seed=0, **place)
    >>> sorted(torch.cat([batches[0].x, batches[1].x]).tolist())
    [0, 1, 2, 3, 4, 5]
    >>> torch.equal(batches[7].x, Batches(Batch(torch.arange(6)), 3, seed=0, **place)[7].x)
    True
    """

    def __init__(
        self,
        data: Examples,
        size: int,
        *,
        seed: int,
        stage: str,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        stored = data.tensors().values()
        resident = (
            device.type != "cpu" and sum(t.numel() * t.element_size() for t in stored) <= _RESIDENT_BYTES
        )
        self.data = data.to(device) if resident else data
        self._home = next(iter(self.data.tensors().values())).device
        self._size, self._seed, self._stage, self._device = size, seed, stage, device
        self._part = slice(rank * size // processes, (rank + 1) * size // processes)
        self._augment = augment
        self._orders: dict[int, Tensor] = {}
        # A copy to a GPU or a page fault overlaps with the step; an index into memory is not worth a thread.
        self._worker = None if resident or device.type == "cpu" else ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[Batch]] = {}

    def indices(self, k: int) -> Tensor:
        """The examples of batch k over all processes, ``(size,)``."""
        n = len(self.data)
        start, parts, wanted = k * self._size, [], self._size
        while wanted:
            epoch, offset = divmod(start, n)
            part = self._order(epoch)[offset : offset + wanted]
            parts.append(part)
            start, wanted = start + len(part), wanted - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __getitem__(self, k: int) -> Batch:
        """This process's part of batch k, on the device."""
        if self._worker is None:
            return self._load(k)
        ready = self._ahead.pop(k, None) or self._worker.submit(self._load, k)
        self._ahead = {k + 1: self._ahead.get(k + 1) or self._worker.submit(self._load, k + 1)}
        return ready.result()

    def close(self) -> None:
        """Stop loading ahead."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _load(self, k: int) -> Batch:
        indices = self.indices(k)[self._part]
        if isinstance(self.data, Crops):
            batch = self.data.drawn(indices, self._generator("crop", k))
        else:
            batch = self.data[indices]
        if self._augment is not None:
            batch = replace(batch, x=self._augment(batch.x, self._generator("augment", k)))
        if self._device.type == "cuda" and self._home.type == "cpu":
            batch = batch.map(lambda t: t.pin_memory())
        return batch.to(self._device, non_blocking=True)

    def _generator(self, use: str, k: int) -> torch.Generator:
        """All randomness of one kind in this process's part of batch k, beside the data."""
        seed = derive(self._seed, self._stage, use, k, self._part.start)
        return torch.Generator(self._home).manual_seed(seed)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(derive(self._seed, self._stage, "epoch", epoch))
            latest = {e: order for e, order in self._orders.items() if e == epoch - 1}
            # Beside the data: an index sent from the host in every step would make it wait for the device.
            self._orders = latest | {
                epoch: torch.randperm(len(self.data), generator=generator).to(self._home)
            }
        return self._orders[epoch]
