"""What a measurement is given, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Sounds
from ancestral.evaluation.batches import WHOLE, batches
from ancestral.evaluation.tokens import encode, encode_sounds
from ancestral.figures import Codebook, Figure
from ancestral.media import Pixels, Sheet
from ancestral.model import Model

MOST_CLASSES = 20
"""Classes up to which the likelihood without the label is computed where labels are at hand: it costs a pass
for each."""


Each = Tensor | list[Tensor]
"""Something of each example: a tensor of all, or one for each where they differ in length."""


@dataclass(frozen=True)
class Condition:
    """Whether a likelihood is that of the examples, or of the examples given their labels."""

    labeled: bool
    note: str = ""

    @property
    def suffix(self) -> str:
        """What it adds to a figure's id."""
        return "_given_label" if self.labeled else ""

    @property
    def words(self) -> str:
        """What it adds to a figure's name and quantity."""
        return " given the label" if self.labeled else ""

    def __call__(self, batch: Batch) -> Batch:
        """The batch with labels, or without."""
        return batch if self.labeled else replace(batch, labels=None)


@dataclass(frozen=True)
class Examined:
    """A model, and the examples that it is measured on."""

    model: Model
    examples: Batch | Sounds
    """As the data set holds them; labels only if they are the model's classes."""
    importance_samples: int = 0
    """k of the importance-weighted bound, for models that have one; 0 and 1 leave it out."""
    progress: bool = False
    """Whether to show progress."""
    named: Sequence[str] = ()
    """Measures that were asked for by name; none if all are taken that draw nothing."""
    data: Dataset[Any] | None = None
    """The data set that they are of."""
    split: str = "test"
    """And which part of it."""

    def each(self, what: str, function: Callable[..., Tensor], *more: Each) -> Tensor:
        """``function`` of each batch and of the same part of ``more``, on the model's device.

        Sounds come one by one, as long as they are.
        """
        device, results = self.model.device, []
        dims = WHOLE if isinstance(self.examples, Sounds) else 1
        for part in batches(len(self.examples), what, device=device, show=self.progress, dims=dims):
            batch = self.examples[part].to(device)
            also = (many[part] if isinstance(many, Tensor) else torch.stack(many[part]) for many in more)
            results.append(function(batch, *(tensor.to(device) for tensor in also)).cpu())
        return torch.cat(results)

    @property
    def counts(self) -> Tensor | None:
        """Of sounds, how many values each has, ``(N,)``."""
        return self.examples.counts if isinstance(self.examples, Sounds) else None

    def some(self, n: int) -> Batch:
        """At most ``n`` examples, evenly from all of them, on the model's device."""
        return self.examples.some(n).to(self.model.device)

    @cached_property
    def codes(self) -> tuple[Each, ...]:
        """The code maps of the examples, a level each: of a tokenizer. Those of sounds are of any length."""
        assert isinstance(self.model, Tokenizer)
        if isinstance(self.examples, Sounds):
            return encode_sounds(self.model, self.examples, show=self.progress)
        return encode(self.model, self.examples.x, show=self.progress)

    @property
    def log_determinant(self) -> float:
        """What is added to the log density of a standardized row to make it that of the row in the file."""
        return 0.0 if self.data is None else self.data.log_determinant

    @property
    def conditions(self) -> list[Condition]:
        """The likelihoods to measure: without labels, and given those that the model knows."""
        classes = self.model.sample_classes
        if not classes or self.examples.labels is None:
            return [Condition(labeled=False)]
        if classes > MOST_CLASSES:
            return [Condition(labeled=True, note=f"mixture of {classes} classes left out")]
        return [Condition(labeled=False), Condition(labeled=True)]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a measurement gives."""

    figures: list[Figure] = field(default_factory=list)
    codebooks: list[Codebook] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be measured, and why: a sentence each."""
    pictures: Mapping[str, Callable[[], Pixels | Sheet]] = field(default_factory=dict)
    """By name; drawn when they are called."""


class Measurement(Protocol):
    """One file of ``ancestral.evaluation.measurements``.

    Its noise comes from torch's generators, which are seeded before it.
    """

    def applies(self, model: Model) -> bool:
        """Whether the model can be measured so."""

    def measure(self, examined: Examined) -> Result:
        """Measure it."""
