"""What one example is: its domain, its shape, how many levels a value has, how many classes there are."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ancestral.errors import UserError, check_type, shown

Domain = Literal["image", "sound", "codes", "table"]

_MOST = 2**31
"""Of the values of an example, and of what each may be: what 32 bits count."""
_DIMENSIONS: dict[Domain, str] = {"image": "(C, H, W)", "sound": "(C, T)", "table": "(D,)"}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The type of the data that a model is built for.

    An example is an array of integers: an image ``(C, H, W)``, a sound ``(1, T)`` or a map of codes
    ``(M, h, w)``; or a row of a table, ``(D,)`` real numbers. Sounds are of any length: T is how long those
    are that a training sees.

    >>> Spec(shape=(1, 28, 28)).domain, Spec(shape=(1, 16000), rate=16000, encoding="mu-law").domain
    ('image', 'sound')
    >>> Spec(shape=(7,), levels=None).domain
    'table'
    """

    shape: tuple[int, ...]
    """Shape of one example, channels first."""
    levels: int | None = 256
    """Values lie in 0 .. levels-1; None for continuous data."""
    classes: int = 0
    """Number of classes that labels may name; 0 for unlabeled data."""
    domain: Domain | None = None
    """What an example is, which decides how it is drawn, written and shown; None: what the shape says."""
    rate: int | None = None
    """Of sound: samples a second."""
    encoding: Literal["linear", "mu-law"] | None = None
    """Of sound: what a level stands for, an amplitude or a companded one (ITU-T G.711)."""
    contexts: tuple["Spec", ...] = ()
    """What each context of an example is (coarser code maps, features); none for data without."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "shape", tuple(map(operator.index, self.shape)))  # JSON gives a list
        except TypeError:
            raise UserError(
                f"expected a shape of integers, got {self.shape!r}", "write it as (1, 28, 28)"
            ) from None
        if not self.shape or min(self.shape) < 1:
            problem = f"expected a shape of positive sizes, got {self.shape}"
            raise UserError(problem, "give each example at least one value")
        if self.levels is not None and self.levels < 2:
            raise UserError(f"expected at least 2 levels, got {self.levels}", "constant data need no model")
        if self.classes < 0:
            raise UserError(f"expected 0 or more classes, got {self.classes}", "0 is for unlabeled data")
        counts = {"values": self.dims, "levels": self.levels, "classes": self.classes, "a rate": self.rate}
        for name, count in counts.items():
            if count is not None and count > _MOST:
                problem = f"expected {name} of at most 2^31, got {shown(count)}"
                raise UserError(problem, "mend shape, levels, classes or rate")
        by_shape = {1: "table", 2: "sound", 3: "image"}.get(len(self.shape))
        if self.domain is None:
            if by_shape is None:
                raise UserError(
                    f"expected a shape of 1 to 3 sizes, got {self.shape}", "say what it is: domain='codes'"
                )
            object.__setattr__(self, "domain", by_shape)
        elif self.domain not in ("codes", by_shape):
            expected = _DIMENSIONS.get(
                self.domain, f"one of the domains {', '.join([*_DIMENSIONS, 'codes'])}"
            )
            raise UserError(
                f"expected {expected} for the domain {self.domain}, got {self.shape}", "mend shape or domain"
            )
        if self.domain != "sound" and (self.rate is not None or self.encoding is not None):
            raise UserError(
                f"expected a rate and an encoding of sound alone, got them of {self.domain}", "leave them out"
            )
        object.__setattr__(self, "contexts", tuple(self.contexts))

    @property
    def dims(self) -> int:
        """D, the number of data values in one example: what bits/dim divides by."""
        return math.prod(self.shape)

    @property
    def silence(self) -> int:
        """Of sound: the value that stands for no amplitude, which padding holds."""
        return (self.levels or 0) // 2

    @property
    def ordered(self) -> bool:
        """Whether neighboring levels mean neighboring things: true of intensities, false of code indices."""
        return self.domain != "codes"

    @property
    def discrete_levels(self) -> int:
        """The number of levels of discrete data. Raises UserError for continuous data."""
        if self.levels is None:
            problem = "expected data with a number of levels, got continuous data"
            raise UserError(problem, "use a flow (ancestral models lists them)")
        return self.levels

    def check(
        self, x: Tensor, labels: Tensor | None = None, contexts: Sequence[Tensor] | None = None
    ) -> None:
        """Raise UserError unless ``x`` is ``(N, *shape)`` with values, labels and contexts of this spec.

        Reads the extreme values, so that it synchronizes: call it where data come in, never inside a step.
        """
        check_type(x, Tensor, "a tensor of examples", "wrap it: torch.as_tensor(x)")
        if not self.fits(x.shape):
            if self.fits((1, *x.shape)):
                problem = f"expected examples (N, {', '.join(map(str, self.shape))}), got one of them"
                raise UserError(problem, "add a dimension: x[None]")
            problem = f"expected examples of shape {self.shape}, got {tuple(x.shape[1:])}"
            raise UserError(problem, "use data of the model's own shape")
        if self.levels is not None:
            check_integers(x, self.levels, "values", "use data with as many levels as the model")
        else:
            check_finite(x, "values")
        if labels is not None:
            self.check_labels(labels, len(x))
        if contexts is not None:
            self.check_contexts(contexts, len(x))

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether ``(N, ...)`` is a shape of examples of this spec: of sounds, whatever their length.

        >>> Spec(shape=(1, 4096)).fits((2, 1, 70000)), Spec(shape=(1, 28, 28)).fits((2, 1, 28, 29))
        (True, False)
        """
        if len(shape) != 1 + len(self.shape) or not shape[-1]:
            return False
        return self.shape == tuple(shape[1:]) or (self.sequential and self.shape[:-1] == tuple(shape[1:-1]))

    @property
    def sequential(self) -> bool:
        """Whether examples, sounds or their codes ``(M, t)``, may be of any length."""
        return self.domain == "sound" or (self.domain == "codes" and len(self.shape) == 2)

    def at_length(self, length: int) -> "Spec":
        """The spec of sounds of another length; their contexts grow with them.

        Raises:
            UserError: the examples are no sounds, nor codes of them, or contexts would have no whole length.

        >>> Spec(shape=(1, 4096)).at_length(70000).shape
        (1, 70000)
        """
        if not self.sequential or length < 1:
            got = f"{length} of {self.domain} {self.shape}"
            raise UserError(f"expected a length of at least 1 of sounds, got {got}", "leave it out")
        old, contexts = self.shape[-1], []
        for context in self.contexts:
            if context.shape[-1] * length % old:
                factor = old // context.shape[-1]
                problem = f"expected a length in steps of {factor}, as the codes are, got {length}"
                raise UserError(problem, f"give {-(-length // factor) * factor}")
            contexts.append(context.at_length(context.shape[-1] * length // old))
        return replace(self, shape=(*self.shape[:-1], length), contexts=tuple(contexts))

    def check_labels(self, labels: Tensor, n: int) -> None:
        """Raise UserError unless ``labels`` are ``n`` classes of this spec."""
        if self.classes == 0:
            problem = "expected no labels, got some: the model was trained without classes"
            raise UserError(problem, "leave labels out")
        check_type(labels, Tensor, "a tensor of labels", "wrap them: torch.tensor(labels)")
        if tuple(labels.shape) != (n,):
            raise UserError(
                f"expected {n} labels, got shape {tuple(labels.shape)}", "give one label for each example"
            )
        check_integers(labels, self.classes, "labels", "choose labels among the model's classes")

    def check_contexts(self, contexts: Sequence[Tensor], n: int) -> None:
        """Raise UserError unless ``contexts`` are one of each of this spec's, for ``n`` examples each."""
        if len(contexts) != len(self.contexts):
            problem = f"expected {len(self.contexts)} contexts, got {len(contexts)}"
            raise UserError(problem, "give the model what it was trained on")
        for i, (spec, context) in enumerate(zip(self.contexts, contexts, strict=True)):
            try:
                spec.check(context)
            except UserError as error:
                raise UserError(
                    f"{error.problem} as context {i}", "give the model what it was trained on"
                ) from None
            if len(context) != n:
                raise UserError(
                    f"expected {n} examples of context {i}, got {len(context)}", "give one for each example"
                )

    def scale(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Integers 0..levels-1 to floats in [-1, 1]; continuous data change their dtype alone.

        >>> Spec(shape=(3,), levels=5).scale(torch.tensor([[0, 2, 4]]))
        tensor([[-1.,  0.,  1.]])
        """
        if self.levels is None:
            return x.to(dtype or x.dtype)
        x = x.to(dtype or torch.get_default_dtype()) if not x.is_floating_point() else x
        return x * (2.0 / (self.levels - 1)) - 1.0

    def unscale(self, y: Tensor) -> Tensor:
        """Floats in [-1, 1] to the nearest integers of 0..levels-1, as this spec's ``dtype``."""
        levels = self.discrete_levels
        return ((y + 1.0) * ((levels - 1) / 2.0)).round().clamp(0, levels - 1).to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The smallest dtype that holds the levels: uint8, int16 or int32; float32 for continuous data."""
        if self.levels is None:
            return torch.float32
        return torch.uint8 if self.levels <= 256 else torch.int16 if self.levels <= 2**15 else torch.int32


def check_finite(values: Tensor, what: str) -> None:
    """Raise UserError unless ``values``, called ``what``, are finite floats.

    It looks at them, which waits for the device.
    """
    if not values.is_floating_point():
        raise UserError(f"expected floats as {what}, got {values.dtype}", "convert them: x.float()")
    if not bool(values.isfinite().all()):
        wrong = int((~values.isfinite()).sum())
        raise UserError(
            f"expected finite {what}, got NaN or infinity {wrong} times", "leave those examples out"
        )


def check_integers(values: Tensor, levels: int, what: str, remedy: str) -> None:
    """Raise UserError unless ``values``, called ``what``, are integers 0..levels-1.

    It looks at them, which waits for the device.
    """
    if values.is_floating_point() or values.is_complex():
        raise UserError(
            f"expected integers 0..{levels - 1} as {what}, got {values.dtype}", "round them to integers first"
        )
    if not values.numel():
        return
    if values.dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):  # whose extremes torch lacks
        values = values.to(torch.int64)
    least, most = (int(extreme) for extreme in values.aminmax())
    if least < 0 or most >= levels:
        raise UserError(
            f"expected {what} 0..{levels - 1}, got {f'{least}..{most}' if least != most else least}", remedy
        )
