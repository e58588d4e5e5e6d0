"""The conditionals one value after another: what sampling, completion and a codec are made of."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import Likelihood
from ancestral.errors import UserError, check_type
from ancestral.nn.streaming import Cursor
from ancestral.spec import Spec, check_integers


class Streamable(Protocol):
    """What a stream asks of a model. ``Autoregressive`` says what each of these is."""

    spec: Spec
    groups: int
    likelihood_of: Likelihood
    training: bool

    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def sample_classes(self) -> int: ...  # noqa: D102
    def check_labels(self, labels: Tensor, n: int) -> None: ...  # noqa: D102
    def on_grid(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def features(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def condition(self, labels: Tensor | None, contexts: Sequence[Tensor]) -> Any: ...  # noqa: D102
    def rows(self, above: Tensor, condition: Any, cursor: Cursor | None) -> Any: ...  # noqa: D102
    def positions(self, x: Tensor, rows: Any, condition: Any, cursor: Cursor | None) -> Tensor: ...  # noqa: D102


class Stream:
    """The conditionals of a model one value after another: ask ``conditional``, then ``push`` the value.

    It takes the multiplications of one pass of the network in all (for each channel where a network sees a
    position's own channels). The weights must stay as they are while it runs. A model with weight
    normalization is faster inside ``torch.nn.utils.parametrize.cached()``.

    >>> from ancestral.models.autoregressive.pixelcnn import PixelCNN
    >>> stream = PixelCNN(PixelCNN.Config.tiny(), Spec(shape=(3, 4, 4), levels=8)).eval().stream(n=2)
    >>> stream.push(torch.tensor([7, 0]))
    >>> stream.index, stream.conditional().log_pmf().shape
    ((1, 0, 0), torch.Size([2, 8]))
    """

    def __init__(self, model: Streamable, n: int, labels: Tensor | None, contexts: Sequence[Tensor]) -> None:
        if n < 1:
            raise UserError(f"expected at least 1 example, got {n}", "raise n")
        if model.training:
            raise UserError(
                "expected a model in evaluation mode, got one in training mode", "call model.eval() first"
            )
        if labels is not None:
            model.check_labels(labels, n)
        elif model.sample_classes:
            raise UserError(
                "expected labels for a class-conditional model, got none",
                f"give {n} classes 0..{model.sample_classes - 1}",
            )
        model.spec.check_contexts(contexts, n)
        if labels is not None:
            labels = labels.to(model.device)
        self.model, self.n = model, n
        self.x = torch.zeros(n, *model.spec.shape, dtype=torch.int64, device=model.device)
        """The values so far, ``(n, *spec.shape)``; those to come are 0."""
        self.done = 0
        """Values pushed so far."""
        self._map = model.on_grid(self.x)
        self._cursor = Cursor(n, model.grid, model.device, model.dtype)
        with torch.no_grad():
            self.condition: Any = model.condition(labels, [context.to(model.device) for context in contexts])
            """What the network is conditioned on, in all steps."""
        self._rows: Any = None
        self._here: Tensor | None = None
        self._output: Tensor | None = None
        self._conditional: Discrete | None = None

    @property
    def index(self) -> tuple[int, ...] | None:
        """Channel, row and column (channel and time) of the next value; None at the end."""
        if self.done == self.model.spec.dims:
            return None
        channels, *sizes = self.model.spec.shape
        position, channel = divmod(self.done, channels)
        row, column = divmod(position, sizes[-1])
        return (channel, column) if len(sizes) == 1 else (channel, row, column)

    @torch.no_grad()
    def conditional(self) -> Discrete:
        """p(x_i | x_<i, c) of the next value, batch shape ``(n,)``. Raises UserError at the stream's end."""
        if self._conditional is not None:
            return self._conditional
        index = self.index
        if index is None:
            raise UserError("expected a value to come, got the end of the stream", "start another one")
        channel, (row, column) = index[0], divmod(self.done // self.model.spec.shape[0], self.model.grid[1])
        place = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        cursor, model = self._cursor, self.model
        if channel == 0:
            self._advance(row, column)
        if channel == 0 or not model.likelihood_of.coupled:
            cursor.column = column
            if (
                model.groups > 1 or self._here is None
            ):  # else the network sees none of the position: any features will do
                self._here = model.features(self._map[place])[:, :, 0, 0]
            self._output = model.positions(self._here, self._rows, self.condition, cursor)
        assert self._output is not None
        here = model.likelihood_of(self._output[:, :, None, None], self._map[place])
        self._conditional = here[:, channel, 0, 0]
        return self._conditional

    def _advance(self, row: int, column: int) -> None:
        """Move the cursor to a position; where a row begins, compute what the rows above say about it."""
        cursor, model = self._cursor, self.model
        if self.done:
            before_row, before = divmod(row * model.grid[1] + column - 1, model.grid[1])
            features = model.features(self._map[:, :, before_row : before_row + 1, before : before + 1])
            cursor.previous = features[:, :, 0, 0]
        cursor.row, cursor.column = row, column
        if column == 0:
            cursor.column = None
            above = model.features(self._map[:, :, max(row - 1, 0)][:, :, None])
            # Channels last, a column of a row is one piece of memory for each example.
            above = above.contiguous(memory_format=torch.channels_last)
            self._rows = model.rows(above if row else torch.zeros_like(above), self.condition, cursor)
            cursor.column = 0

    def push(self, values: Tensor, *, check: bool = True) -> None:
        """Say what the next value is, ``(n,)`` integers.

        Args:
            values: one integer for each example.
            check: whether to look at the values (which waits for the device); the shape is checked always.

        Raises:
            UserError: values of another number of examples or outside the levels, or the end of the stream.
        """
        index = self.index
        if index is None:
            raise UserError("expected a value to come, got the end of the stream", "start another one")
        check_type(values, Tensor, f"a tensor of {self.n} values", "give one for each example")
        if tuple(values.shape) != (self.n,):
            raise UserError(
                f"expected {self.n} values for this stream, got shape {tuple(values.shape)}",
                "give one for each example",
            )
        if check:
            check_integers(values, self.model.spec.discrete_levels, "values", "use the model's levels")
        if self._conditional is None:  # known values still have to pass the network
            self.conditional()
        place: tuple[Any, ...] = (slice(None), *index)
        self.x[place] = values
        self._conditional = None
        self.done += 1
