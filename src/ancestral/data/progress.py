"""Work on many images a chunk at a time, in threads where that is faster."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ancestral.progress import bar

T = TypeVar("T")

_SAMPLE = 32
"""Items of a chunk, at most, that tell by their time whether threads pay."""
_PAYS = 1e-3
"""Seconds an item from which on threads pay: shorter ones only fight over the interpreter's lock."""


def in_chunks(
    function: Callable[[int], T], start: int, stop: int, chunk: int, what: str
) -> Iterator[tuple[int, list[T]]]:
    """Yield (first index, results) of ``function`` over ``start .. stop-1``, in order."""
    with bar(what, total=stop, done=start) as tell, ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(start, stop, chunk):
            results = _results(function, range(first, min(first + chunk, stop)), pool)
            yield first, results
            tell(first + len(results))


def _results(function: Callable[[int], T], items: range, pool: ThreadPoolExecutor) -> list[T]:
    results: list[T] = []
    started = time.perf_counter()
    spent = 0.0
    while len(results) < min(_SAMPLE, len(items)) and spent < _SAMPLE * _PAYS:
        results.append(function(items[len(results)]))
        spent = time.perf_counter() - started
    rest = items[len(results) :]
    slow = spent > _PAYS * len(results)
    return results + list(pool.map(function, rest) if slow else map(function, rest))
