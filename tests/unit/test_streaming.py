"""Each streaming layer: one place after another gives what the whole map gives, for any kernel, dilation,
stride and size."""

import itertools

import pytest
import torch
from torch import nn

from ancestral.nn.attention import CausalAttention
from ancestral.nn.causal import RasterConv2d, Upsample2d, VerticalConv2d
from ancestral.nn.receptive_field import through, window
from ancestral.nn.recurrent import DiagonalBiLSTM, RowLSTM
from ancestral.nn.streaming import Chain, Cursor, Injection, InputShift, Pointwise, Shift, shift_down, take

GRIDS = [(1, 1), (1, 9), (6, 1), (4, 5), (5, 4)]


def cursor_of(x, grid=None):
    return Cursor(len(x), grid or tuple(x.shape[2:]), x.device, x.dtype)


def by_rows(layer, x):
    """What a layer of a vertical stack gives row after row."""
    cursor, rows = cursor_of(x), []
    for row in range(x.shape[2]):
        cursor.row = row
        rows.append(layer(x[:, :, row : row + 1], cursor))
    return rows


def by_positions(layer, x, *, visits=1):
    """What a layer gives position after position, ``(N, C, H, W)``; each visited again with its true input
    after a wrong one."""
    cursor, out = cursor_of(x), {}
    for row, column in itertools.product(*map(range, x.shape[2:])):
        cursor.row, cursor.column = row, column
        cursor.previous = x.movedim(1, 3).flatten(1, 2)[:, cursor.index - 1] if cursor.index else None
        for visit in range(visits):
            here = x[:, :, row, column]
            out[row, column] = layer(here + (visits - 1 - visit), cursor)
    return out


def check_positions(layer, x, **options):
    with torch.no_grad():
        whole = layer(x)
        for (row, column), here in by_positions(layer, x, **options).items():
            torch.testing.assert_close(here, whole[:, :, row, column], rtol=1e-12, atol=1e-12)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("up", "side", "dilation"), [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 2), (1, 2, 3)])
def test_vertical_convolution(grid, up, side, dilation):
    layer, x = VerticalConv2d(3, 4, up, side, dilation=dilation).double(), noise(2, 3, *grid)
    torch.testing.assert_close(torch.cat(by_rows(layer, x), 2), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize(
    ("up", "left", "right"), [(0, 0, 0), (0, 2, 0), (1, 1, 1), (2, 1, 0), (2, 0, 1), (1, 0, 0), (3, 3, 3)]
)
def test_raster_convolution(grid, up, left, right, dilation):
    layer = RasterConv2d(3, 4, up=up, left=left, right=right, dilation=dilation).double()
    check_positions(layer, noise(2, 3, *grid), visits=2)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("up", "left", "right"), [(0, 0, 0), (0, 2, 0), (1, 1, 1), (3, 3, 3)])
def test_raster_convolution_of_the_input(grid, up, left, right):
    """Mask A: what a position holds at its visit is a guess, and becomes known at the next one."""
    layer = RasterConv2d(
        torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1, 2]), up=up, left=left, right=right, mask="A"
    ).double()
    x = noise(2, 3, *grid)
    cursor = cursor_of(x)
    with torch.no_grad():
        whole = layer(x)
        for row, column in itertools.product(*map(range, grid)):
            cursor.row, cursor.column = row, column
            cursor.previous = x.movedim(1, 3).flatten(1, 2)[:, cursor.index - 1] if cursor.index else None
            here = x[:, :, row, column].clone()
            here[:, 2] = 1e6  # the last channel is what is to be predicted: nobody may see it
            torch.testing.assert_close(layer(here, cursor), whole[:, :, row, column], rtol=1e-12, atol=1e-12)


def test_a_long_row_needs_only_a_window():
    layer = RasterConv2d(2, 3, left=2, dilation=4).double()
    x = noise(2, 2, 1, 1500)
    check_positions(layer, x)
    cursor = cursor_of(x)
    cursor.column = 0
    assert cursor.kept(layer, lambda: layer.start(cursor)).rows.shape[2] < 300


@pytest.mark.parametrize("grid", [(1, 1), (4, 6), (5, 3), (1, 7), (7, 1)])
def test_strided_layers(grid):
    """Half the resolution and back, for even and odd sizes: rows in the vertical stack, positions in the
    other."""
    x = noise(2, 3, *grid)
    down, up = VerticalConv2d(3, 4, 1, 1, stride=2).double(), Upsample2d(4, 3, side=1).double()
    coarse = down(x)
    assert coarse.shape[2:] == (-(-grid[0] // 2), -(-grid[1] // 2))
    whole = up(coarse)[:, :, : grid[0], : grid[1]]
    cursor = cursor_of(x)
    for row in range(grid[0]):
        cursor.row, cursor.column = row, None
        below = down(x[:, :, row : row + 1], cursor)
        assert bool(below.numel()) is (row % 2 == 0)
        torch.testing.assert_close(up(below, cursor), whole[:, :, row : row + 1], rtol=1e-12, atol=1e-12)
    down, up = RasterConv2d(3, 4, up=1, left=1, stride=2).double(), Upsample2d(4, 3, side=0).double()
    with torch.no_grad():
        whole = up(down(x))[:, :, : grid[0], : grid[1]]
    cursor = cursor_of(x)
    for row, column in itertools.product(*map(range, grid)):
        cursor.row, cursor.column = row, column
        with torch.no_grad():
            below = down(x[:, :, row, column], cursor)
            torch.testing.assert_close(up(below, cursor), whole[:, :, row, column], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_recurrent_layers(grid, kind):
    layer = kind(torch.tensor([0, 0, 1]), torch.tensor([0, 1])).double()
    check_positions(layer, noise(2, 3, *grid), visits=2)


@pytest.mark.parametrize("grid", GRIDS)
def test_diagonal_lstm_is_its_recurrence(grid):
    """Against the definition: the state of a position from its left and its upper neighbor, and mirrored one
    row up."""
    layer = DiagonalBiLSTM(torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)).double()
    x = noise(1, 3, *grid)
    height, width = grid

    def recur(part, x):
        gates, weight = part.input_to_state(x), part.state_to_state.weight
        hidden, cell = {}, {}
        for row, column in itertools.product(range(height), range(width)):
            zero = x.new_zeros(1, 2)
            both = torch.cat([hidden.get((row, column - 1), zero), hidden.get((row - 1, column), zero)], 1)
            o, f, i, g = (gates[:, :, row, column] + both @ weight.T).chunk(4, 1)
            cell[row, column] = f.sigmoid() * cell.get((row, column - 1), zero) + i.sigmoid() * g.tanh()
            hidden[row, column] = o.sigmoid() * cell[row, column].tanh()
        return torch.stack([torch.stack([hidden[r, c] for c in range(width)], -1) for r in range(height)], 2)

    expected = recur(layer.left, x) + shift_down(recur(layer.right, x.flip(3)).flip(3))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("strict", [True, False])
def test_attention(grid, strict):
    attention = CausalAttention(2, strict=strict)
    queries, keys, values = noise(2, 6, *grid), noise(2, 6, *grid, seed=1), noise(2, 4, *grid, seed=2)
    whole = attention(queries, keys, values)
    cursor = cursor_of(queries)
    size = grid[0] * grid[1]
    for t in range(size):
        cursor.row, cursor.column = divmod(t, grid[1])
        place = (slice(None), slice(None), cursor.row, cursor.column)
        here = attention(queries[place], keys[place], values[place], cursor)
        torch.testing.assert_close(here, whole[place], rtol=1e-12, atol=1e-12)
        # The definition: a softmax over the entries up to t, without the first one if strict.
        seen = range(int(strict), t + 1)
        if not seen:
            assert not here.any()
            continue
        for head in range(2):
            q = queries.flatten(2)[:, 3 * head : 3 * head + 3, t]
            k = torch.stack([keys.flatten(2)[:, 3 * head : 3 * head + 3, s] for s in seen], 2)
            v = torch.stack([values.flatten(2)[:, 2 * head : 2 * head + 2, s] for s in seen], 2)
            weights = ((q[:, :, None] * k).sum(1) / 3**0.5).softmax(1)
            torch.testing.assert_close(
                here[:, 2 * head : 2 * head + 2], (v * weights[:, None]).sum(2), rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("grid", GRIDS)
def test_shifts(grid):
    x = noise(2, 3, *grid)
    check_positions(Shift(), x, visits=2)
    check_positions(InputShift(wrap=True), x)
    check_positions(InputShift(wrap=False), x)
    flat = Shift()(x).flatten(2)
    assert torch.equal(flat[:, :, 1:], x.flatten(2)[:, :, :-1])
    assert not flat[:, :, 0].any()
    assert not InputShift(wrap=False)(x)[..., 0].any()


@pytest.mark.parametrize("sizes", [(1, 1), (4, 5), (1, 5)])
def test_injection_and_take(sizes):
    layer, condition = Injection(3, 4).double(), noise(2, 3, *sizes)
    whole = layer(condition)
    cursor = Cursor(2, (4, 5), torch.device("cpu"), torch.float64)
    for row in range(4):
        cursor.row, cursor.column = row, None
        torch.testing.assert_close(layer(condition, cursor), take(whole, cursor))
        for column in range(5):
            cursor.column = column
            expected = whole.expand(-1, -1, 4, 5)[:, :, row, column]
            torch.testing.assert_close(layer(condition, cursor), expected)
            torch.testing.assert_close(take(whole, cursor), expected)


def test_chains_pass_the_cursor_on():
    chain = Chain(
        RasterConv2d(3, 4, up=1, left=1),
        nn.ReLU(),
        Pointwise(4, 5),
        Chain(nn.Tanh(), RasterConv2d(5, 2, left=1)),
    ).double()
    check_positions(chain, noise(2, 3, 4, 5))


def test_memory_lives_in_the_cursor():
    """Two streams through the same layers do not meet, and leave nothing behind in them."""
    chain = Chain(RasterConv2d(3, 4, up=1, left=1), RasterConv2d(4, 2, left=1)).double()
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    x, y = noise(2, 3, 3, 3), noise(2, 3, 3, 3, seed=1)
    cursors = [cursor_of(x), cursor_of(y)]
    with torch.no_grad():
        for row, column in itertools.product(range(3), range(3)):
            for values, cursor in zip((x, y), cursors, strict=True):
                cursor.row, cursor.column = row, column
                here = chain(values[:, :, row, column], cursor)
                torch.testing.assert_close(here, chain(values)[:, :, row, column], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


@pytest.mark.parametrize(
    "layer",
    [
        RasterConv2d(1, 1, up=2, left=1, right=3, dilation=2),
        RasterConv2d(1, 1, up=1, left=1, stride=2),
        VerticalConv2d(1, 1, 1, 2),
        VerticalConv2d(1, 1, 1, 1, stride=2),
        RowLSTM(torch.zeros(1, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
        DiagonalBiLSTM(torch.zeros(1, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_receptive_field_on_paper_is_the_gradient(layer):
    grid = (5, 6)
    layer = layer.double()
    x = noise(4, 1, *grid).requires_grad_()
    out = layer(x).sum((0, 1)).flatten()
    rows = [torch.autograd.grad(o, x, retain_graph=True)[0].abs().sum((0, 1)).flatten() > 0 for o in out]
    assert torch.equal(torch.stack(rows), layer.receptive_field(grid))


@pytest.mark.parametrize("side", [0, 1])
def test_receptive_field_of_the_upsampling(side):
    grid = (5, 6)
    layer = Upsample2d(1, 1, side=side).double()
    x = noise(2, 1, 3, 3).requires_grad_()
    out = layer(x)[:, :, :5, :6].sum((0, 1)).flatten()
    rows = [torch.autograd.grad(o, x, retain_graph=True)[0].abs().sum((0, 1)).flatten() > 0 for o in out]
    assert torch.equal(torch.stack(rows), layer.receptive_field(grid))


def test_receptive_fields_compose():
    grid = (3, 4)
    left, up = window(grid, {(0, -1)}), window(grid, {(-1, 0)})
    assert torch.equal(through(left, up), window(grid, {(-1, -1)}))
