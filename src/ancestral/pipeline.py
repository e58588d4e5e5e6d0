"""A function of many examples, a part after another: the next one is read while one is computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ancestral.batch import Batch, Examples

_VALUES = 2**24
"""Of x, on which a network computes at once: at 64 channels 4 GB of features, if it keeps the size."""


def part_size(dims: int, most: int) -> int:
    """Examples of a part: ``most`` if they are small, of large ones a divisor of it.

    So parts begin at the same examples whether shards of ``most``, or several times that, are cut first.

    >>> [part_size(3 * side**2, 250) for side in (32, 256, 1024, 4096)]
    [250, 50, 5, 1]
    """
    fitting = min(most, max(1, _VALUES // dims))
    return next(size for size in range(fitting, 0, -1) if most % size == 0)


def computed(
    examples: Examples,
    parts: Iterable[slice],
    function: Callable[[Batch], Mapping[str, Tensor]],
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """What ``function`` makes of each part of the examples, on the CPU.

    It is called on the device. A GPU begins with a part before the results of the one before are waited for.

    >>> squares = computed(
    ...     Batch(torch.arange(5)),
    ...     [slice(0, 3), slice(3, 5)],
    ...     lambda part: {"squares": part.x**2},
    ...     torch.device("cpu"),
    ... )
    >>> [part["squares"].tolist() for part in squares]
    [[0, 1, 4], [9, 16]]
    """
    gpu, rest = device.type == "cuda", iter(parts)
    with ThreadPoolExecutor(1, "reader") as reader:

        def following() -> "Future[Batch] | None":
            rows = next(rest, None)
            return None if rows is None else reader.submit(_read, examples, rows, pinned=gpu)

        ahead, before = following(), None
        while ahead is not None:
            part = ahead.result().to(device, non_blocking=gpu)
            ahead = following()
            made = _sent(function(part), device)
            if not gpu:
                yield made()
                continue
            if before is not None:
                yield before()
            before = made
        if before is not None:
            yield before()


def _read(examples: Examples, rows: slice, *, pinned: bool) -> Batch:
    """Some examples, read into memory: pinned, where a GPU copies from it by itself."""

    def copied(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor
        return tensor.pin_memory() if pinned else tensor.clone()

    return examples[rows].map(copied)


def _sent(made: Mapping[str, Tensor], device: torch.device) -> Callable[[], dict[str, Tensor]]:
    """Begin to copy tensors to the CPU. The function that is returned waits until they are there."""
    gpu = device.type == "cuda"
    there = {name: tensor.to("cpu", non_blocking=gpu) for name, tensor in made.items()}
    if not gpu:
        return lambda: there
    done = torch.cuda.current_stream(device).record_event()

    def wait() -> dict[str, Tensor]:
        done.synchronize()
        return there

    return wait
