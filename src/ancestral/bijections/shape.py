"""Bijections that move values without changing them, and the multi-scale architecture."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancestral.bijections.base import Bijection, no_change
from ancestral.errors import UserError


class Permutation(Bijection):
    """Channels, or the columns of a table, in another order: output i is input ``order[i]``.

    Raises:
        UserError: ``order`` is no permutation of 0, 1, …
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(len(order))):
            problem = f"expected each of 0..{len(order) - 1} once as a permutation, got {list(order)}"
            raise UserError(problem, "take torch.randperm(channels).tolist()")
        self.register_buffer("order", torch.tensor(order))
        self.register_buffer("back", torch.tensor(order).argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return x.index_select(1, self.order), no_change(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z.index_select(1, self.back), no_change(z)


class Reversal(Bijection):
    """Channels, or the columns of a table, from the last to the first."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return x.flip(1), no_change(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z.flip(1), no_change(z)


class Reshape(Bijection):
    """Examples of one shape as examples of another: flattened images, say."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        if math.prod(before) != math.prod(after):
            problem = f"expected a shape of as many values as {tuple(before)}, got {tuple(after)}"
            raise UserError(problem, "flatten it: (D,)")
        self.before, self.after = tuple(before), tuple(after)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return x.reshape(-1, *self.after), no_change(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z.reshape(-1, *self.before), no_change(z)


class Squeeze(Bijection):
    """Blocks of 2x2 pixels into channels, ``(N, C, H, W)`` to ``(N, 4C, H/2, W/2)``.

    Dinh et al., 2016 (https://arxiv.org/abs/1605.08803), section 3.6. The channels of each of a block's four
    places stand together: by rows, or with ``diagonal`` upper left, lower right, upper right, lower left, so
    that the first half is a checkerboard of the image (the authors' code).
    """

    def __init__(self, *, diagonal: bool = False) -> None:
        super().__init__()
        self.diagonal = diagonal

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``. Raises UserError for a size that is odd."""
        n, c, h, w = x.shape
        check_squeezable((h, w), 1)
        # Channels last, as convolutions want them.
        blocks = x.movedim(1, -1).reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).flatten(3, 4)
        if self.diagonal:
            upper_left, others, lower_right = blocks.split([1, 2, 1], 3)
            blocks = torch.cat([upper_left, lower_right, others], 3)
        return blocks.flatten(3).movedim(-1, 1), no_change(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        n, c, h, w = z.shape
        blocks = z.movedim(1, -1).reshape(n, h, w, 4, c // 4)
        if self.diagonal:
            upper_left, lower_right, rest = blocks.split([1, 1, 2], 3)
            blocks = torch.cat([upper_left, rest, lower_right], 3)
        blocks = blocks.reshape(n, h, w, 2, 2, c // 4)
        return blocks.transpose(2, 3).reshape(n, 2 * h, 2 * w, c // 4).movedim(-1, 1), no_change(z)


def check_squeezable(grid: Sequence[int], times: int) -> None:
    """Raise UserError unless an image of this height and width can be squeezed so many times."""
    if any(size % 2**times for size in grid):
        fitting = "x".join(str(max(1, round(size / 2**times)) * 2**times) for size in grid)
        problem = f"expected height and width that {2**times} divides, got {'x'.join(map(str, grid))}"
        fewer = " or choose fewer scales or levels" if times > 1 else ""
        raise UserError(problem, f"resize the images to {fitting}{fewer}")


class MultiScale(Bijection):
    """Levels after each of which a half of the channels is done, ``(N, C, H, W)`` to ``(N, D)``.

    Dinh et al., 2016, section 3.6 and figure 4b. Level i ends in channels of which the first half goes on to
    the next level; the other one is noise, as it is or given the first half: then ``factored[i]`` is a
    bijection of all channels that changes the second half alone (a coupling), as in Glow.

    Args:
        levels: what happens at each resolution; the last level's channels are all done.
        shapes: the shape of an example after each level.
        factored: one for each level but the last; none: noise as it is.
    """

    def __init__(
        self,
        levels: Sequence[Bijection],
        shapes: Sequence[Sequence[int]],
        factored: Sequence[Bijection] = (),
    ) -> None:
        super().__init__()
        if factored and len(factored) != len(levels) - 1:
            problem = f"expected a factored part for each of {len(levels) - 1} levels, got {len(factored)}"
            raise UserError(problem, "leave out that of the last level")
        self.levels, self.factored = nn.ModuleList(levels), nn.ModuleList(factored)
        self.shapes = [tuple(shape) for shape in shapes]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        total, done = no_change(x), []
        for i, level in enumerate(self.levels):
            x, log_det = level(x, context)
            total = total + log_det
            if i < len(self.levels) - 1:
                if self.factored:
                    x, log_det = self.factored[i](x, context)
                    total = total + log_det
                x, rest = x.chunk(2, 1)
                done.append(rest.flatten(1))
        return torch.cat([*done, x.flatten(1)], 1), total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        total = no_change(z)
        sizes = [math.prod(shape) // 2 for shape in self.shapes[:-1]]
        *done, x = z.split([*sizes, math.prod(self.shapes[-1])], 1)
        x = x.reshape(-1, *self.shapes[-1])
        for i in reversed(range(len(self.levels))):
            if i < len(self.levels) - 1:
                x = torch.cat([x, done[i].reshape(x.shape)], 1)
                if self.factored:
                    x, log_det = _inverse(self.factored[i], x, context)
                    total = total + log_det
            x, log_det = _inverse(self.levels[i], x, context)
            total = total + log_det
        return x, total


def _inverse(module: nn.Module, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    assert isinstance(module, Bijection)
    return module.inverse(z, context)
