"""Convolutions that see only the past of the raster order, channel by channel, whole or in a stream."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

from ancestral.errors import UserError
from ancestral.nn.receptive_field import Grid, window
from ancestral.nn.streaming import Cursor, Streaming


def channel_groups(width: int, groups: int) -> Tensor:
    """The group of each of ``width`` channels, ``(width,)``: in order, and as even as can be for any width.

    >>> channel_groups(8, 3)
    tensor([0, 0, 0, 1, 1, 1, 2, 2])
    """
    if width < groups:
        raise UserError(
            f"expected a width of at least the {groups} channels of the data, got {width}", "raise the width"
        )
    return torch.arange(width) * groups // width


def check_odd(**kernels: int) -> None:
    """Raise UserError, naming the first, unless every kernel's size is odd and at least 3."""
    for name, size in kernels.items():
        if size % 2 == 0 or size < 3:
            raise UserError(f"expected an odd {name} of at least 3, got {size}", "try 3 or 5")


class VerticalConv2d(Streaming):
    """Sees its own row and ``up`` rows above, ``side`` columns to each side.

    Shapes: ``(N, C, H, W)`` to ``(N, out, H, W)``. On an input that is shifted down by a row it sees only
    rows above. In a stream it computes a row at a time. With ``stride`` 2 an output row stands for two input
    rows and sees the first of them; sizes are rounded up.

    >>> layer = VerticalConv2d(1, 4, up=1, side=1)
    >>> layer(torch.zeros(2, 1, 5, 7)).shape
    torch.Size([2, 4, 5, 7])
    >>> layer.receptive_field((2, 3))[4].view(2, 3).int()  # what the middle of the second row sees
    tensor([[1, 1, 1],
            [1, 1, 1]], dtype=torch.int32)
    """

    def __init__(
        self, in_channels: int, out_channels: int, up: int, side: int, *, dilation: int = 1, stride: int = 1
    ) -> None:
        super().__init__()
        layer = nn.Conv2d(in_channels, out_channels, (up + 1, 2 * side + 1))
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias
        self.up, self.side, self.dilation, self.stride = up, side, dilation, stride

    def whole(self, x: Tensor) -> Tensor:
        """Convolve, padding the top and the sides with zeros."""
        sides, top = self.side * self.dilation, self.up * self.dilation
        return conv2d(
            pad(x, (sides, sides, top, 0)), self.weight, self.bias, stride=self.stride, dilation=self.dilation
        )

    def receptive_field(self, grid: Grid) -> Tensor:
        """See ``ancestral.nn.receptive_field``."""
        d = self.dilation
        offsets = {(-i * d, j * d) for i in range(self.up + 1) for j in range(-self.side, self.side + 1)}
        return window(grid, offsets, stride=self.stride)

    def start(self, cursor: Cursor) -> "_VerticalState":
        """No rows yet; the weights as they are now.

        They are channels last, so that a column of the result is one piece of memory.
        """
        return _VerticalState(
            self.weight.detach().to(cursor.dtype).contiguous(memory_format=torch.channels_last)
        )

    def step(self, x: Tensor, kept: "_VerticalState", cursor: Cursor) -> Tensor:
        """A row ``(N, C, 1, W)``, each given once, in order; with a stride empty between coarser rows."""
        kept.rows.insert(0, x)
        del kept.rows[self.up * self.dilation + 1 :]
        if cursor.row % self.stride:
            return x[..., :0]
        rows = kept.rows[:: self.dilation]
        # The rows above the map are zeros, which the kernel's upper part need not see.
        weight = kept.weight[:, :, self.up + 1 - len(rows) :]
        sides = self.side * self.dilation
        seen = pad(torch.cat(rows[::-1], 2) if len(rows) > 1 else x, (sides, sides))
        return conv2d(seen, weight, self.bias, stride=self.stride, dilation=(1, self.dilation))


@dataclass
class _VerticalState:
    """What a ``VerticalConv2d`` keeps."""

    weight: Tensor
    rows: list[Tensor] = field(default_factory=list)
    """The rows above, the nearest first, ``(N, C, 1, W)``."""


@dataclass
class _RasterState:
    """What a ``RasterConv2d`` keeps: its input, and what the rows above add to each column of this one."""

    weight: Tensor
    """Of the row itself, ``(columns * in, out)``."""
    weight_above: Tensor
    """Of the rows above, the uppermost first, ``(up * columns * in, out)``."""
    rows: Tensor
    """A ring of input rows with their left and right padding, ``(N, up + 1, columns, in)``."""
    above: Tensor
    """``(columns, N, out)`` or, where no row above is seen, the bias ``(1, out)``."""
    base: int = 0
    """Column of the map at which the kept columns begin, less the padding (sequences keep a window only)."""
    row: int = -1


class RasterConv2d(Streaming):
    """Sees a rectangle of the past: ``(N, C, H, W)`` to ``(N, out, ceil(H/stride), ceil(W/stride))``.

    Of its own row, the position itself and ``left`` positions before it; of each of the ``up`` rows above,
    ``left`` positions to the left and ``right`` to the right. At its own position, an output channel of group
    g sees input channels of groups < g (mask A) or <= g (mask B) (van den Oord et al., 2016,
    https://arxiv.org/abs/1601.06759, section 3.4).

    >>> RasterConv2d(1, 1, up=1, left=1, right=1, mask="A").seen[0, 0]
    tensor([[1., 1., 1.],
            [1., 0., 0.]])

    Args:
        in_groups: number of input channels, or the group of each, ``(in,)``.
        out_groups: the same of the output channels.
        up, left, right: what it sees.
        mask: ``A`` for the layer that sees the network's input, ``B`` elsewhere.
        dilation: distance of the positions it sees.
        stride: 2 for a map of half the resolution, whose position stands for 2x2 and sees the first of them.
    """

    seen: Tensor

    def __init__(
        self, in_groups: int | Tensor, out_groups: int | Tensor, *, up: int = 0, left: int = 0,
        right: int = 0, mask: Literal["A", "B"] = "B", dilation: int = 1, stride: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.masked = (
            mask == "A" or right > 0 or not (isinstance(in_groups, int) and isinstance(out_groups, int))
        )
        in_groups = torch.zeros(in_groups, dtype=torch.int64) if isinstance(in_groups, int) else in_groups
        out_groups = torch.zeros(out_groups, dtype=torch.int64) if isinstance(out_groups, int) else out_groups
        layer = nn.Conv2d(len(in_groups), len(out_groups), (up + 1, left + right + 1))
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias
        self.up, self.left, self.right, self.dilation, self.stride = up, left, right, dilation, stride
        self.mask = mask
        own = (
            out_groups[:, None] > in_groups[None, :]
            if mask == "A"
            else out_groups[:, None] >= in_groups[None, :]
        )
        seen = torch.ones_like(self.weight)
        seen[:, :, -1, left] = own.to(seen.dtype)
        seen[:, :, -1, left + 1 :] = 0
        self.register_buffer("seen", seen, persistent=False)

    @property
    def effective_weight(self) -> Tensor:
        """The weight with zeros where the future is, ``(out, in, up + 1, left + right + 1)``."""
        return self.weight * self.seen if self.masked else self.weight

    def whole(self, x: Tensor) -> Tensor:
        """Convolve with the masked weight, padding with zeros."""
        d = self.dilation
        padded = pad(x, (self.left * d, self.right * d, self.up * d, 0))
        return conv2d(padded, self.effective_weight, self.bias, stride=self.stride, dilation=d)

    def receptive_field(self, grid: Grid, *, own: bool = True) -> Tensor:
        """See ``ancestral.nn.receptive_field``; ``own``: whether a position sees itself (mask A: in part)."""
        d = self.dilation
        offsets = {(-i * d, j * d) for i in range(1, self.up + 1) for j in range(-self.left, self.right + 1)}
        return window(
            grid, offsets | {(0, -j * d) for j in range(0 if own else 1, self.left + 1)}, stride=self.stride
        )

    def start(self, cursor: Cursor) -> _RasterState:
        """No rows yet; the weights as they are now."""
        weight = self.weight.detach().to(cursor.dtype).contiguous(memory_format=torch.channels_last)
        weight = weight.permute(0, 2, 3, 1)  # (out, up + 1, columns, in), as the products below read it
        own = weight[:, -1, : self.left + 1]
        if self.masked:  # of the rows above, all is seen
            own = own * self.seen[:, :, -1, : self.left + 1].movedim(1, -1)
        span = (self.left + self.right) * self.dilation
        columns = cursor.grid[1] + span
        if self.up == 0:  # a long sequence needs no more than a window, which moves on when it is full
            columns = min(columns, max(2 * span, span + 256))
        rows = cursor.zeros(self.up * self.dilation + 1, columns, weight.shape[-1])
        return _RasterState(
            weight=own.flatten(1).t(),
            weight_above=weight[:, :-1].flatten(1).t(),
            rows=rows,
            above=self.bias.detach().to(cursor.dtype)[None],
        )

    def step(self, x: Tensor, kept: _RasterState, cursor: Cursor) -> Tensor:
        """A position ``(N, in)`` to ``(N, out)``; with a stride empty between the coarser positions."""
        row, column = cursor.row, cursor.column
        assert column is not None
        if self.up == self.left == 0 and self.stride == 1:
            return torch.addmm(kept.above, x, kept.weight)
        d, ring, pad_left = self.dilation, kept.rows.shape[1], self.left * self.dilation
        if (
            self.mask == "A" and cursor.previous is not None
        ):  # what was a guess at the last visit is now known
            before = cursor.index - 1
            slot, at = before // cursor.grid[1] % ring, before % cursor.grid[1]
            if self.up or at < column:
                kept.rows[:, slot, pad_left + at - kept.base] = cursor.previous
        if kept.row != row:
            kept.row, kept.base = row, 0
            kept.rows[:, row % ring] = 0
            if self.up and row % self.stride == 0:
                kept.above = self._above(kept, row)
        at = pad_left + column - kept.base
        if at == kept.rows.shape[2]:
            keep = pad_left
            kept.rows[:, :, :keep] = kept.rows[:, :, at - keep :].clone()
            kept.base += at - keep
            at = keep
        own = kept.rows[:, row % ring]
        own[:, at] = x
        if row % self.stride or column % self.stride:
            return x.new_empty(0)
        seen = own[:, at - pad_left : at + 1 : d].flatten(1)
        above = kept.above[column // self.stride] if self.up else kept.above
        return torch.addmm(above, seen, kept.weight)

    def _above(self, kept: _RasterState, row: int) -> Tensor:
        """What the rows above add to each position of ``row``, bias included: ``(columns, N, out)``."""
        d, ring = self.dilation, kept.rows.shape[1]
        above = min(self.up, row // d)  # the rows above the map are zeros
        if above == 0:
            return self.bias.to(kept.rows.dtype).expand(kept.rows.shape[2], len(kept.rows), -1)
        seen = torch.stack(
            [kept.rows[:, (row - i * d) % ring] for i in range(above, 0, -1)], 1
        )  # (N, above, columns, in)
        windows = seen.unfold(2, (self.left + self.right) * d + 1, self.stride)[..., ::d]
        # A product of matrices takes the weights as they are, where a convolution would order them anew for
        # each row.
        inputs = windows.permute(2, 0, 1, 4, 3).flatten(2)  # (columns, N, above * columns seen * in)
        weight = kept.weight_above[-inputs.shape[2] :]
        out = torch.addmm(self.bias.to(weight.dtype), inputs.flatten(0, 1), weight)
        return out.view(*inputs.shape[:2], -1)


class Upsample2d(Streaming):
    """A transposed convolution of stride 2.

    Position (i, j) is seen in rows 2i, 2i + 1 and columns 2j - ``side`` .. 2j + 1. With ``side`` 1 it belongs
    to a vertical stack and computes rows in a stream, with 0 to a raster one and computes positions. The map
    of a stream's cursor is the finer one; between the places of the coarser map the layer repeats what it
    computed at the last of them, whatever it is given.
    """

    def __init__(self, in_channels: int, out_channels: int, *, side: int) -> None:
        super().__init__()
        layer = nn.ConvTranspose2d(in_channels, out_channels, (2, 2 + side), stride=2)
        assert layer.bias is not None
        self.weight, self.bias, self.side = layer.weight, layer.bias, side

    def whole(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, out, 2h, 2w)``; the caller crops odd sizes."""
        return conv_transpose2d(x, self.weight, self.bias, stride=2)[..., self.side :]

    def receptive_field(self, grid: Grid) -> Tensor:
        """See ``ancestral.nn.receptive_field``; ``grid`` is that of the finer map."""
        height, width = grid
        coarse = (-(-height // 2), -(-width // 2))
        field = torch.zeros(height * width, coarse[0] * coarse[1], dtype=torch.bool)
        for i in range(coarse[0]):
            for j in range(coarse[1]):
                for row in range(2 * i, min(2 * i + 2, height)):
                    for column in range(max(2 * j - self.side, 0), min(2 * j + 2, width)):
                        field[row * width + column, i * coarse[1] + j] = True
        return field

    def start(self, cursor: Cursor) -> dict[str, Tensor]:
        """The computed rows or positions that are still to come."""
        if self.side:
            return {}
        return {"next_row": cursor.zeros(2 * (-(-cursor.grid[1] // 2)), self.weight.shape[1])}

    def step(self, x: Tensor, kept: dict[str, Tensor], cursor: Cursor) -> Tensor:
        """The finer row ``(N, out, 1, W)`` or position ``(N, out)``."""
        row, column = cursor.row, cursor.column
        if column is None:
            if row % 2 == 0:
                both = self.whole(x)[..., : cursor.grid[1]]
                kept["row"], kept["next_row"] = both[:, :, :1], both[:, :, 1:]
            return kept["next_row" if row % 2 else "row"]
        if row % 2:
            return kept["next_row"][:, column]
        if column % 2 == 0:
            four = torch.einsum("nc,cokl->nklo", x, self.weight) + self.bias  # (N, row, column, out)
            kept["next_position"] = four[:, 0, 1]
            kept["next_row"][:, column : column + 2] = four[:, 1]
            return four[:, 0, 0]
        return kept["next_position"]
