"""Options of sampling, which models and commands share. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Annotated

from ancestral.configuration import Configuration, Positive, Range


@dataclass(frozen=True, kw_only=True)
class Sampling(Configuration):
    """Options of sampling. A model says by ``sampling_options`` which it takes.

    >>> Sampling(top_p=1.5)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected top_p in (0, 1], got 1.5; choose a value in that range
    """

    temperature: Positive = 1.0
    """1 samples the model; lower values give likelier, less diverse samples."""
    top_k: Annotated[int | None, Range(least=1)] = None
    """Draw from the k likeliest levels of each value (models that draw values in order)."""
    top_p: Annotated[float | None, Range(above=0, most=1)] = None
    """Draw from the likeliest levels that together reach this probability (the same models)."""
    truncation: Annotated[float | None, Range(least=0)] = None
    """Keep the latents this near to their mean (models that say so)."""

    def changes(self) -> dict[str, float]:
        """The options that are not as they are by default.

        >>> Sampling(temperature=0.5).changes()
        {'temperature': 0.5}
        """
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}
