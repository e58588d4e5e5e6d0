"""Options of sampling, which models and commands share. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeAlias, TypeVar

from ancestral.configuration import Configuration, Range

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sampling(Configuration):
    """Options of sampling. A model says by ``sampling_options`` which it takes.

    A model with several levels of codes takes one value for all or one for each, coarse to fine.

    >>> Sampling(top_p=1.5)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected top_p in (0, 1], got 1.5; choose a value in that range
    """

    temperature: Annotated[float | tuple[float, ...], Range(above=0)] = 1.0
    """1 samples the model; lower values give likelier, less diverse samples. A model with several levels of
    codes takes one value for all or one for each, coarse to fine: 1,0.8."""
    top_k: Annotated[int | tuple[int, ...] | None, Range(least=1)] = None
    """Draw from the k likeliest levels of each value (models that draw values in order)."""
    top_p: Annotated[float | tuple[float, ...] | None, Range(above=0, most=1)] = None
    """Draw from the likeliest levels that together reach this probability (the same models)."""
    truncation: Annotated[float | None, Range(least=0)] = None
    """Keep the latents this near to their mean (models that say so)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(value, list | tuple):
                value = value[0] if len(value) == 1 else tuple(value) or field.default
                object.__setattr__(self, field.name, value)
        super().__post_init__()

    @classmethod
    def of(cls, **options: Any) -> "Sampling":
        """These options; values of several levels may be any sequence."""
        return cls(**options)

    def changes(self) -> dict[str, Any]:
        """The options that are not as they are by default.

        >>> Sampling(temperature=0.5).changes()
        {'temperature': 0.5}
        """
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def at_level(self, i: int) -> "Sampling":
        """The options of level ``i`` alone.

        >>> Sampling(temperature=(1.0, 0.7), top_p=0.9).at_level(1).changes()
        {'temperature': 0.7, 'top_p': 0.9}
        """
        values = {name: value for name, value in self.changes().items() if isinstance(value, tuple)}
        return replace(self, **{name: value[i] for name, value in values.items()})


def single(value: T | tuple[T, ...]) -> T:
    """The value of an option that has one for all levels."""
    assert not isinstance(value, tuple)
    return value


PerLevel: TypeAlias = T | Sequence[T]
"""What functions take for an option: a value, or one for each level."""
