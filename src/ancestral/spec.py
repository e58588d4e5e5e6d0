"""What one example is: its shape, how many levels a value has, how many classes there are."""

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.errors import UserError, check_type


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The type of the data that a model is built for.

    An example is an integer array: an image ``(C, H, W)``, a sound ``(1, T)`` or a map of codes ``(M, h, w)``.
    """

    shape: tuple[int, ...]
    """Shape of one example, channels first."""
    levels: int | None = 256
    """Values lie in 0 .. levels-1; None for continuous tables."""
    classes: int = 0
    """Number of classes that labels may name; 0 for unlabeled data."""
    ordered: bool = True
    """Whether neighboring levels mean neighboring things: true of intensities, false of code indices."""
    context: "Spec | None" = None
    """What a spatial context of each example is (a coarser code map, features); None for data without one."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "shape", tuple(map(operator.index, self.shape)))  # JSON gives a list
        except TypeError:
            raise UserError(
                f"expected a shape of integers, got {self.shape!r}", "write it as (1, 28, 28)"
            ) from None
        if not self.shape or min(self.shape) < 1:
            raise UserError(
                f"expected a shape of positive sizes, got {self.shape}",
                "give each example at least one value",
            )
        if self.levels is not None and self.levels < 2:
            raise UserError(f"expected at least 2 levels, got {self.levels}", "constant data need no model")

    @property
    def dims(self) -> int:
        """D, the number of data values in one example: what bits/dim divides by."""
        return math.prod(self.shape)

    @property
    def discrete_levels(self) -> int:
        """The number of levels of discrete data. Raises UserError for continuous data."""
        if self.levels is None:
            raise UserError(
                "expected data with a number of levels, got continuous data",
                "use a flow (ancestral models lists them)",
            )
        return self.levels

    def check(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Raise UserError unless ``x`` is ``(N, *shape)`` with values of this spec and ``labels`` are ``(N,)`` classes.

        Reads the extreme values, so that it synchronizes: call it where data come in, never inside a step.
        """
        check_type(x, Tensor, "a tensor of examples", "wrap it: torch.as_tensor(x)")
        if x.dim() != 1 + len(self.shape) or tuple(x.shape[1:]) != self.shape:
            if tuple(x.shape) == self.shape:
                raise UserError(
                    f"expected examples (N, {', '.join(map(str, self.shape))}), got one of them",
                    "add a dimension: x[None]",
                )
            raise UserError(
                f"expected examples of shape {self.shape}, got {tuple(x.shape[1:])}",
                "use data of the model's own shape",
            )
        if self.levels is not None:
            check_integers(x, self.levels, "values", "use data with as many levels as the model")
        if labels is not None:
            self.check_labels(labels, len(x))

    def check_labels(self, labels: Tensor, n: int) -> None:
        """Raise UserError unless ``labels`` are ``n`` classes of this spec."""
        if self.classes == 0:
            raise UserError(
                "expected no labels, got some: the model was trained without classes", "leave labels out"
            )
        check_type(labels, Tensor, "a tensor of labels", "wrap them: torch.tensor(labels)")
        if tuple(labels.shape) != (n,):
            raise UserError(
                f"expected {n} labels, got shape {tuple(labels.shape)}", "give one label for each example"
            )
        check_integers(labels, self.classes, "labels", "choose labels among the model's classes")

    def scale(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Integers 0..levels-1 to floats in [-1, 1]; continuous data pass unchanged."""
        x = x.to(dtype or torch.get_default_dtype()) if not x.is_floating_point() else x
        return x if self.levels is None else x * (2.0 / (self.levels - 1)) - 1.0

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


def check_integers(values: Tensor, levels: int, what: str, remedy: str) -> None:
    """Raise UserError unless ``values``, called ``what``, are integers 0..levels-1. It looks at them, which waits for the device."""
    if values.is_floating_point() or values.is_complex():
        raise UserError(
            f"expected integers 0..{levels - 1} as {what}, got {values.dtype}", "round them to integers first"
        )
    if not values.numel():
        return
    least, most = (int(extreme) for extreme in values.aminmax())
    if least < 0 or most >= levels:
        raise UserError(
            f"expected {what} 0..{levels - 1}, got {f'{least}..{most}' if least != most else least}", remedy
        )
