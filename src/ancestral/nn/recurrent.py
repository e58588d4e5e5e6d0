"""The two-dimensional LSTMs of PixelRNN (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from ancestral.nn.causal import RasterConv2d
from ancestral.nn.receptive_field import Grid, through, window
from ancestral.nn.streaming import Cursor, Streaming, shift_down


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3: hidden and cell state from the gates (output, forget, input, content) in dimension 1."""
    output, forget, admit, content = gates.chunk(4, dim=1)
    cell = forget.sigmoid() * cell + admit.sigmoid() * content.tanh()
    return output.sigmoid() * cell.tanh(), cell


@dataclass
class _Row:
    """States of the row above and of this one so far, and what the former adds to gates, ``(W, N, C)``."""

    hidden: Tensor
    cell: Tensor
    hidden_above: Tensor
    cell_above: Tensor
    gates: Tensor
    row: int = -1


class RowLSTM(Streaming):
    """An LSTM down the rows (section 3.1): ``(N, in, H, W)`` to ``(N, hidden, H, W)``.

    The state of a position comes from three of the row above. What a position receives is a triangle above it
    and, by the masked input-to-state convolution, its neighbor to the left.

    Args:
        in_groups: the data's channel that each input channel belongs to.
        hidden_groups: the same of the hidden channels.
    """

    def __init__(self, in_groups: Tensor, hidden_groups: Tensor) -> None:
        super().__init__()
        hidden = len(hidden_groups)
        self.hidden = hidden
        self.input_to_state = RasterConv2d(in_groups, hidden_groups.repeat(4), left=1)
        # The row above is past for every channel: no mask.
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """See ``Streaming``; the gates' inputs have a memory of their own."""
        return super().forward(self.input_to_state(x, cursor), cursor)

    def whole(self, x: Tensor) -> Tensor:
        """From the inputs of the gates, ``(N, 4 hidden, H, W)``."""
        state = cell = x.new_zeros(x.shape[0], self.hidden, x.shape[3])
        rows = []
        for row in x.unbind(2):
            state, cell = _lstm(row + self.state_to_state(state), cell)
            rows.append(state)
        return torch.stack(rows, 2)

    def receptive_field(self, grid: Grid) -> Tensor:
        """See ``ancestral.nn.receptive_field``."""
        upwards = window(grid, {(-1, -1), (-1, 0), (-1, 1)})
        states = torch.eye(grid[0] * grid[1], dtype=torch.bool)
        for _ in range(grid[0] - 1):
            states = states | through(upwards, states)
        return through(states, self.input_to_state.receptive_field(grid))

    def start(self, cursor: Cursor) -> _Row:
        """States of zero."""
        width = cursor.grid[1]
        states = torch.zeros(
            4, width, cursor.n, self.hidden, device=cursor.device, dtype=cursor.dtype
        ).unbind(0)
        return _Row(states[0], states[1], states[2], states[3], gates=states[0])

    def step(self, x: Tensor, kept: _Row, cursor: Cursor) -> Tensor:
        """``(N, 4 hidden)`` to ``(N, hidden)``."""
        if kept.row != cursor.row:
            kept.row = cursor.row
            kept.hidden, kept.hidden_above = kept.hidden_above, kept.hidden
            kept.cell, kept.cell_above = kept.cell_above, kept.cell
            kept.gates = self.state_to_state(kept.hidden_above.permute(1, 2, 0)).permute(2, 0, 1)
        column = cursor.column
        assert column is not None
        hidden, kept.cell[column] = _lstm(x + kept.gates[column], kept.cell_above[column])
        kept.hidden[column] = hidden
        return hidden


class DiagonalBiLSTM(nn.Module):
    """Two LSTMs along the diagonals (section 3.2): ``(N, in, H, W)`` to ``(N, hidden, H, W)``.

    They come from the upper left and the upper right. The one from the right is shifted down by a row, as it
    would see the future otherwise. Together they see every position above and to the left; but behind a first
    layer that sees none of a position's own value, the last value of the row above stays unseen from the far
    left of a row.
    """

    def __init__(self, in_groups: Tensor, hidden_groups: Tensor) -> None:
        super().__init__()
        self.left = _DiagonalLSTM(in_groups, hidden_groups)
        self.right = _FromRight(len(in_groups), len(hidden_groups))

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """The sum of both."""
        return self.left(x, cursor) + self.right(x, cursor)

    def receptive_field(self, grid: Grid) -> Tensor:
        """See ``ancestral.nn.receptive_field``."""
        height, width = grid
        left = {(-up, -back) for up in range(height) for back in range(width)}
        right = {(-up, ahead) for up in range(1, height) for ahead in range(width)}
        return window(grid, left | right)


def _diagonal(gates: Tensor, weight: Tensor) -> Tensor:
    """The LSTM from the upper left over inputs of the gates ``(N, 4 hidden, H, W)``: ``(N, hidden, H, W)``.

    The map is skewed (each row one further to the right), so that a diagonal is a column; states outside the
    map are zero.
    """
    n, channels, height, width = gates.shape
    span = height + width - 1
    row, column = (
        torch.arange(height, device=gates.device)[:, None],
        torch.arange(width, device=gates.device)[None, :],
    )
    skewed = gates.new_zeros(n, channels, height, span)
    skewed[:, :, row, row + column] = gates
    place = torch.arange(span, device=gates.device)[:, None] - row.T  # (span, H): column of the map
    inside = ((place >= 0) & (place < width)).to(gates.dtype)
    hidden = cell = gates.new_zeros(n, channels // 4, height)
    columns = []
    for diagonal, here in enumerate(skewed.unbind(3)):
        both = torch.cat([hidden, pad(hidden[:, :, :-1], (1, 0))], 1)  # left neighbor, upper neighbor
        recurrent = torch.einsum("nch,oc->noh", both, weight)
        hidden, cell = _lstm(here + recurrent, cell)
        hidden, cell = hidden * inside[diagonal], cell * inside[diagonal]
        columns.append(hidden)
    return torch.stack(columns, 3)[:, :, row, row + column]


@dataclass
class _Diagonal:
    """States of this row and the one above, ``(W + 1, N, hidden)``, beginning with zeros left of the map."""

    hidden: Tensor
    cell: Tensor
    above: Tensor
    row: int = -1

    @classmethod
    def zeros(cls, cursor: Cursor, hidden: int) -> "_Diagonal":
        shape = (cursor.grid[1] + 1, cursor.n, hidden)
        hidden_state, cell, above = (
            torch.zeros(shape, device=cursor.device, dtype=cursor.dtype) for _ in range(3)
        )
        return cls(hidden_state, cell, above)

    def begin(self, row: int) -> None:
        """What was this row is the one above."""
        self.row, self.hidden, self.above = row, self.above, self.hidden

    def advance(self, gates: Tensor, column: int, weight: Tensor) -> Tensor:
        both = torch.cat([self.hidden[column], self.above[column + 1]], 1)
        hidden, self.cell[column + 1] = _lstm(gates + linear(both, weight), self.cell[column])
        self.hidden[column + 1] = hidden
        return hidden


class _DiagonalLSTM(Streaming):
    """From the upper left: the state of a position comes from those to the left and above."""

    def __init__(self, in_groups: Tensor, hidden_groups: Tensor) -> None:
        super().__init__()
        hidden = len(hidden_groups)
        self.hidden = hidden
        self.input_to_state = RasterConv2d(in_groups, hidden_groups.repeat(4))
        self.state_to_state = nn.Linear(2 * hidden, 4 * hidden, bias=False)

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        return super().forward(self.input_to_state(x, cursor), cursor)

    def whole(self, x: Tensor) -> Tensor:
        return _diagonal(x, self.state_to_state.weight)

    def start(self, cursor: Cursor) -> _Diagonal:
        return _Diagonal.zeros(cursor, self.hidden)

    def step(self, x: Tensor, kept: _Diagonal, cursor: Cursor) -> Tensor:
        if kept.row != cursor.row:
            kept.begin(cursor.row)
        assert cursor.column is not None
        return kept.advance(x, cursor.column, self.state_to_state.weight)


class _FromRight(Streaming):
    """From the upper right, shifted down by a row, so that it sees rows above alone and needs no masks."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_to_state = nn.Conv2d(in_channels, 4 * hidden, 1)
        self.state_to_state = nn.Linear(2 * hidden, 4 * hidden, bias=False)

    def whole(self, x: Tensor) -> Tensor:
        return shift_down(_diagonal(self.input_to_state(x.flip(3)), self.state_to_state.weight).flip(3))

    def start(self, cursor: Cursor) -> tuple[_Diagonal, Tensor]:
        """The states, of which index 0 is right of the map, and the input of this row ``(W, N, in)``."""
        inputs = torch.zeros(
            cursor.grid[1],
            cursor.n,
            self.input_to_state.in_channels,
            device=cursor.device,
            dtype=cursor.dtype,
        )
        return _Diagonal.zeros(cursor, self.hidden), inputs

    def step(self, x: Tensor, kept: tuple[_Diagonal, Tensor], cursor: Cursor) -> Tensor:
        states, inputs = kept
        width, column = cursor.grid[1], cursor.column
        assert column is not None
        if states.row != cursor.row:
            states.begin(cursor.row)
            if cursor.row:  # the row above is complete: go through it from the right
                gates = linear(
                    inputs.flip(0), self.input_to_state.weight.flatten(1), self.input_to_state.bias
                )
                for i in range(width):
                    states.advance(gates[i], i, self.state_to_state.weight)
        inputs[column] = x
        return states.hidden[width - column].clone()
