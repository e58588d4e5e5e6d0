"""Options of sampling, which models and commands share. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeAlias, TypeVar

from ancestral.configuration import Configuration, Range
from ancestral.errors import UserError

T = TypeVar("T")

PerLevel: TypeAlias = T | Sequence[T]
"""An option: a value, or one for each level."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Configuration):
    """Options of sampling. A model says by ``sampling_options`` which it takes.

    A model with several levels of codes takes one value for all or one for each, coarse to fine.

    >>> Sampling(top_p=1.5)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected top_p in (0, 1], got 1.5; choose a value in that range
    """

    temperature: Annotated[PerLevel[float], Range(above=0)] = 1.0
    """1 samples the model; lower values give likelier, less diverse samples. A model with several levels of
    codes takes one value for all or one for each, coarse to fine: 1,0.8."""
    top_k: Annotated[PerLevel[int | None], Range(least=1)] = None
    """Draw from the k likeliest levels of each value (models that draw values in order); of several levels,
    None leaves one alone: 40,None."""
    top_p: Annotated[PerLevel[float | None], Range(above=0, most=1)] = None
    """Draw from the likeliest levels that together reach this probability (the same models)."""
    truncation: Annotated[float | None, Range(least=0)] = None
    """Keep latents near to their mean: of styles the share of the way that is left, from 0 to 1 for all of
    it; of BigGAN's latents the size beyond which they are drawn again, .5 or 2 for instance."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(value, list | tuple):
                value = value[0] if len(value) == 1 else tuple(value) or field.default
                object.__setattr__(self, field.name, value)
        super().__post_init__()

    def changes(self) -> dict[str, Any]:
        """The options that are not as they are by default.

        >>> Sampling(temperature=0.5).changes()
        {'temperature': 0.5}
        """
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def at_level(self, i: int) -> "Sampling":
        """The options of level ``i`` alone.

        >>> Sampling(temperature=(1.0, 0.7), top_k=(5, None), top_p=0.9).at_level(1).changes()
        {'temperature': 0.7, 'top_p': 0.9}
        """
        values = {name: value for name, value in self.changes().items() if isinstance(value, tuple)}
        return replace(self, **{name: value[i] for name, value in values.items()})


PLAIN = Sampling()
"""A model as it is."""


def single(value: PerLevel[T]) -> T:
    """The value of an option that has one for all levels. Raises UserError if it has several.

    >>> single(0.9)
    0.9
    """
    if isinstance(value, Sequence):
        got = ",".join(map(str, value))
        raise UserError(f"expected one value of an option of sampling, got {got}", "give one for all levels")
    return value
