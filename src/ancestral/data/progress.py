"""Work on many images in threads, a chunk at a time."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ancestral.progress import bar

T = TypeVar("T")


def in_chunks(
    function: Callable[[int], T], start: int, stop: int, chunk: int, what: str
) -> Iterator[tuple[int, list[T]]]:
    """Yield (first index, results) of ``function`` over ``start .. stop-1``, in order."""
    with bar(what, total=stop, done=start) as tell, ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(start, stop, chunk):
            results = list(pool.map(function, range(first, min(first + chunk, stop))))
            yield first, results
            tell(first + len(results))
