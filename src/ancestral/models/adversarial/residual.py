"""Residual blocks that double and halve maps, of adversarial models since the gradient penalty's paper."""

from collections.abc import Callable

from torch import Tensor, nn

from ancestral.errors import UserError
from ancestral.nn.resampling import doubled, halved

Convolution = Callable[[int, int, int], nn.Module]
"""Of inputs, outputs and the sides of the kernel."""
Norm = Callable[[int], nn.Module]
"""Of channels: a module that takes maps and what they are conditioned on."""


class Up(nn.Module):
    """Normalization, rectifier, convolution, twice, beside a shortcut; the sides of the map double."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, convolution: Convolution) -> None:
        super().__init__()
        self.norms = nn.ModuleList((norm(inputs), norm(outputs)))
        self.first, self.second = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, 2 h, 2 w)``."""
        h = self.first(doubled(self.norms[0](x, given).relu()))
        h = self.second(self.norms[1](h, given).relu())
        y: Tensor = h + self.shortcut(doubled(x))
        return y


class Down(nn.Module):
    """Rectifier, convolution, twice, beside a shortcut; without normalization of its own.

    With ``halve``, means of 2x2 places come out. The ``first`` block sees an image, which is not rectified.
    """

    def __init__(
        self, inputs: int, outputs: int, convolution: Convolution, *, halve: bool, first: bool = False
    ) -> None:
        super().__init__()
        self.halve, self.starts = halve, first
        self.first, self.second = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1) if halve or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h, w)``, or half of the sides."""
        h = self.second(self.first(x if self.starts else x.relu()).relu())
        if not self.halve:
            kept: Tensor = h + self.shortcut(x)
            return kept
        y: Tensor = halved(h) + self.shortcut(halved(x))
        return y


def check_attention(doublings: int, scales: int) -> None:
    """Raise UserError unless both networks have maps so many doublings from the image, or none is wanted."""
    if doublings and doublings >= scales:
        problem = (
            f"expected maps that see all of themselves within {scales} scales, got {doublings} doublings"
        )
        ways = (
            "choose --model.attention 0"
            if scales == 1
            else f"choose --model.attention {' or '.join(map(str, range(1, scales)))}"
        )
        raise UserError(problem, f"{ways}, or more --model.scales")
