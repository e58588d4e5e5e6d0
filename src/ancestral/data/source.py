"""What a source of files hands over, whatever they hold: names, labels, splits of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class UnusableError(Exception):
    """A file that has to be left out; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """N examples of a source, in an order that is always the same."""

    source: str
    names: tuple[str, ...]
    """What each example is called in the source."""
    given: NDArray[np.int8]
    """The split ``(N,)`` that the source puts each example in; TRAIN where it has none."""
    key: str
    """Changes when the examples, labels or splits of the source change."""
    labels: NDArray[np.int64] | None = None
    """Classes ``(N,)``; -1 where the source keeps one secret."""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What of the source is left out, "name: reason"."""

    def __len__(self) -> int:
        return len(self.names)

    def has(self, split: int) -> bool:
        """Whether the source itself says which examples form this split."""
        return bool((self.given == split).any())

    def labels_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The labels of some examples; None where the source has none or does not tell all of them."""
        if self.labels is None:
            return None
        labels = self.labels[rows]
        return None if (labels < 0).any() else labels
