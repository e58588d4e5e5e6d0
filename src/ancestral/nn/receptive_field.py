"""Receptive fields on paper: which positions a layer sees, as boolean matrices, composed as layers are.

A receptive field is a matrix ``(output positions, input positions)`` on the CPU, positions in raster order.
"""

import torch
from torch import Tensor

Grid = tuple[int, int]


def window(grid: Grid, offsets: set[tuple[int, int]], *, stride: int = 1) -> Tensor:
    """The receptive field of a layer: (i, j) sees the inputs at (stride i + row, stride j + column).

    >>> window((1, 3), {(0, -1), (0, 0)}).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)

    Args:
        grid: height and width of the input.
        offsets: (row, column) of each input that is seen.
        stride: of the output, which is ``ceil(size / stride)`` large.
    """
    height, width = grid
    places = [(r, c) for r in range(0, height, stride) for c in range(0, width, stride)]
    field = torch.zeros(len(places), height * width, dtype=torch.bool)
    for i, (r, c) in enumerate(places):
        for down, right in offsets:
            if 0 <= r + down < height and 0 <= c + right < width:
                field[i, (r + down) * width + c + right] = True
    return field


def through(layer: Tensor, before: Tensor) -> Tensor:
    """The receptive field of a layer after others."""
    return layer.float() @ before.float() > 0


def shifted_down(grid: Grid) -> Tensor:
    """The receptive field of a shift by a row."""
    return window(grid, {(-1, 0)})


def shifted_right(grid: Grid) -> Tensor:
    """The receptive field of a shift by a column."""
    return window(grid, {(0, -1)})
