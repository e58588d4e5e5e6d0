r"""What all factorised models share: :math:`p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)`, one network for training and for a stream.

The order is raster order, channels in order within a position. A model defines two functions of features of the input. ``rows`` sees the
rows above each row and is computed a row at a time; ``positions`` sees the past of each position and what ``rows`` made of it. Whole maps
go through both in training; a ``Stream`` asks for one place after another (see ``ancestral.nn.streaming``).
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu
from torch.nn.utils import parametrize

from ancestral.distributions.discrete import Discrete, check_sampling
from ancestral.distributions.likelihood import Likelihood
from ancestral.errors import UserError, check_at_least, check_type
from ancestral.model import Batch, Completes, ExactLikelihood, Loss, Model, broadcast_known
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.conditioning import Conditioner
from ancestral.nn.embedding import Embedding
from ancestral.nn.streaming import Chain, Cursor, Pointwise, shift_down
from ancestral.spec import Spec, check_integers
from ancestral.units import bits_per_dim


class Factorised(Model, ExactLikelihood, Completes):
    """Base of the autoregressive models.

    Shapes: x ``(N, C, H, W)`` integers, of images or of maps of codes, or sequences ``(N, C, T)``. Likelihood figures are exact, in nats
    for each example. A class-conditional model without labels is the even mixture of its classes.
    """

    dims: Literal[1, 2] = 2
    """Whether an example is a sequence or a map."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of every factorised model."""

        likelihood: Literal["categorical", "logistic-mixture", "coupled-logistic-mixture"] = "categorical"
        """Distribution of a value given the past; code maps take categorical. Coupled: channels share components and shift each other."""
        components: int = 10
        """Components of the logistic mixture."""
        class_conditional: bool = True
        """Condition on the class where the data have classes."""
        condition_width: int = 64
        """Features of what the model is conditioned on: class and context."""
        dropout: float = 0.0
        """Share of the features dropped in training."""

        def __post_init__(self) -> None:
            check_at_least(1, condition_width=self.condition_width, components=self.components)
            if not 0 <= self.dropout < 1:
                raise UserError(f"expected a dropout in [0, 1), got {self.dropout}", "try 0.1")

    def __init__(self, config: Config, spec: Spec, *, embedding_width: int = 1, table: bool | None = None) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != self.dims + 1:
            raise UserError(
                f"expected {'images or code maps (C, H, W)' if self.dims == 2 else 'sequences (C, T)'}, got shape {spec.shape}",
                "use wavenet for sequences" if self.dims == 2 else "use another autoregressive model for images, as pixelcnnpp",
            )
        self.grid: tuple[int, int] = (1, spec.shape[1]) if self.dims == 1 else (spec.shape[1], spec.shape[2])
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        self.embedding = Embedding(spec, embedding_width, table=table)
        self.groups = 1 if self.likelihood_of.coupled else spec.shape[0]
        """Channels that the network keeps in order; a coupled likelihood does that itself, and the network sees none of a position."""
        self.input_groups = self.embedding.groups if self.groups > 1 else torch.zeros_like(self.embedding.groups)
        self.conditioner = Conditioner(spec, self.grid, config.condition_width, class_conditional=config.class_conditional)

    @property
    def condition_width(self) -> int:
        """Features of what the network is conditioned on; 0 for a model without conditions."""
        return self.config.condition_width if self.sample_classes or self.spec.context is not None else 0

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0

    def rows(self, above: Tensor, condition: Any, cursor: Cursor | None = None) -> Any:
        """What the rows above say about each row, for ``positions``.

        Args:
            above: features ``(N, F, H, W)`` shifted down by a row; in a stream the row above ``(N, F, 1, W)``.
            condition: what ``condition`` returned, whole in a stream too.
            cursor: the place in a stream.
        """
        return None

    @abstractmethod
    def positions(self, x: Tensor, rows: Any, condition: Any, cursor: Cursor | None = None) -> Tensor:
        """The network's output ``(N, likelihood_of.channels, H, W)``, or ``(N, channels)`` at the cursor's place.

        Args:
            x: features ``(N, F, H, W)``; in a stream ``(N, F)``, of which only channels before the current one are known.
            rows: what ``rows`` returned, for the cursor's row in a stream.
            condition: what ``condition`` returned, whole in a stream too.
            cursor: the place in a stream.
        """

    def features(self, x: Tensor) -> Tensor:
        """Integers ``(N, C, H, W)`` as the network's input, ``(N, F, H, W)``."""
        return self.embedding(x, self.dtype)

    def condition(self, labels: Tensor | None, context: Tensor | None) -> Any:
        """What ``rows`` and ``positions`` are conditioned on, whole: a map ``(N, condition_width, H, W)`` or None."""
        return self.conditioner(labels if self.sample_classes else None, context, self.dtype)

    def conditionals(self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Discrete:
        """p(x_i | x_<i, c) at every position at once, batch shape that of ``x``."""
        features = self.features(x.unsqueeze(2) if self.dims == 1 else x)
        condition = self.condition(labels, context)
        rows = self.rows(shift_down(features), condition)
        output = self.positions(features, rows, condition)
        return self.likelihood_of(output.squeeze(2) if self.dims == 1 else output, x)

    def log_prob(self, batch: Batch) -> Tensor:
        """Log p(x|c), or without labels log of the mean of p(x|c) over the classes; ``(N,)`` nats."""
        if self.sample_classes and batch.labels is None:
            by_class = []
            for c in range(self.sample_classes):
                labels = torch.full((len(batch),), c, device=batch.x.device)
                by_class.append(self.log_prob(Batch(batch.x, labels, batch.context)))
            return torch.stack(by_class).logsumexp(0) - math.log(self.sample_classes)
        return self.conditionals(batch.x, batch.labels, batch.context).log_prob(batch.x).flatten(1).sum(1)

    def loss(self, batch: Batch, phase: str) -> Loss:
        """Negative log-likelihood, in bits/dim."""
        nats = -self.log_prob(batch).mean()
        loss = bits_per_dim(nats, self.spec.dims)
        return Loss(loss, {"bits_per_dim": loss.detach()})

    def declared_past(self) -> Tensor:
        """Whether output i may depend on input j, ``(D, D)`` boolean on the CPU, for ``ancestral.testing.certify``.

        Values are numbered in raster order, with channels in order within a position. The whole past unless ``reach`` says less.
        """
        channels = self.spec.shape[0]
        past = torch.ones(self.spec.dims, self.spec.dims, dtype=torch.bool).tril(-1)
        positions = torch.eye(self.spec.dims // channels, dtype=torch.bool)
        for channel in range(channels):  # a position's features may know all of its values but the last
            reach = self.reach(own=channel < self.groups - 1)
            if reach is not None:
                past[:, channel::channels] &= (reach | positions).repeat_interleave(channels, 0)
        return past

    def reach(self, *, own: bool) -> Tensor | None:
        """Whether a position's output depends on another position's input, ``(H W, H W)`` boolean on the CPU; None for the whole past.

        Args:
            own: of input channels that a position's features know, at the position itself; of the others otherwise.
        """
        return None

    def stream(self, n: int, labels: Tensor | None = None, context: Tensor | None = None) -> "Stream":
        """The conditionals of ``n`` examples, one value after another.

        Raises:
            UserError: labels or a context that do not fit the model, or a model in training mode.
        """
        return Stream(self, n, labels, context)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, temperature: float = 1.0, generator: Generator | None = None,
        context: Tensor | None = None, top_k: int | None = None, top_p: float | None = None, uniforms: Tensor | None = None,
        x: Tensor | None = None, known: Tensor | None = None, progress: Callable[[float], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw ``n`` examples, one after another value, in the time of about one pass: integers ``(n, *spec.shape)``.

        With ``x`` and ``known`` it continues or repairs examples: known values stay, each other value is drawn given all that come before
        it in raster order (those that come later have no influence).

        Args:
            n: how many.
            labels: classes ``(n,)``; None draws them at random where the model has classes.
            temperature: sharpens each conditional to P^(1/temperature).
            generator: source of all randomness, on the model's device.
            context: what the model is conditioned on, ``(n, *spec.context.shape)``.
            top_k: draw from the k likeliest levels.
            top_p: draw from the likeliest levels that together reach probability p.
            uniforms: noise in [0, 1), ``(n, *spec.shape)``, in place of the generator's: the same noise gives the same integers.
            x: examples to complete, ``(n, *spec.shape)``.
            known: which values of ``x`` stay, boolean, broadcast to ``(n, *spec.shape)``.
            progress: called after each row with the share of the values that is drawn.

        Raises:
            UserError: an argument out of its range or of another shape.
        """
        check_at_least(1, n=n)
        shape = (n, *self.spec.shape)
        check_sampling(temperature, top_k, top_p, self.spec.discrete_levels)
        if uniforms is not None:
            if tuple(uniforms.shape) != shape:
                raise UserError(f"expected noise of shape {shape}, got {tuple(uniforms.shape)}", "give one uniform number for each value")
            if not bool(((uniforms >= 0) & (uniforms < 1)).all()):
                raise UserError("expected noise in [0, 1), got numbers outside it, or NaN", "give uniform numbers: torch.rand")
            uniforms = uniforms.to(self.device)
        if (x is None) != (known is None):
            raise UserError("expected x and known together, got one of them", "known says which values of x stay")
        if x is not None and known is not None:
            self.spec.check(x)
            if len(x) != n:
                raise UserError(f"expected {n} examples to complete, got {len(x)}", "give as many as n")
            known = broadcast_known(known, shape).to(self.device)
            x = x.to(self.device).long()
        if self.sample_classes and labels is None:
            labels = torch.randint(self.sample_classes, (n,), device=self.device, generator=generator)
        if uniforms is None:
            uniforms = torch.rand(shape, device=self.device, generator=generator)
        stream = self.stream(n, labels, context)
        # Inference mode saves a tenth of the time of small operations; what comes out of it is copied below.
        with parametrize.cached(), torch.inference_mode():
            while (index := stream.index) is not None:
                place: tuple[Any, ...] = (slice(None), *index)
                u = uniforms[place]
                values = stream.conditional().quantile(u, temperature, top_k, top_p)
                if x is not None and known is not None:
                    values = torch.where(known[place], x[place], values)
                stream.push(values, check=False)
                if progress and index[0] == shape[1] - 1 and index[-1] == shape[-1] - 1:
                    progress(stream.done / self.spec.dims)
        return stream.x.to(self.spec.dtype, copy=True)


class Stream:
    """The conditionals of a model one value after another, in raster order: ask ``conditional``, then ``push`` the value.

    It costs one pass of the network in all (for each channel, unless the likelihood couples channels itself). The weights must stay as
    they are while it runs. A model with weight normalisation is faster inside ``torch.nn.utils.parametrize.cached()``.
    """

    def __init__(self, model: Factorised, n: int, labels: Tensor | None, context: Tensor | None) -> None:
        if n < 1:
            raise UserError(f"expected at least 1 example, got {n}", "raise n")
        if model.training:
            raise UserError("expected a model in evaluation mode, got one in training mode", "call model.eval() first")
        if labels is not None:
            model.check_labels(labels, n)
        elif model.sample_classes:
            raise UserError("expected labels for a class-conditional model, got none", f"give {n} classes 0..{model.sample_classes - 1}")
        if context is not None and model.spec.context is not None:
            model.spec.context.check(context)
            if len(context) != n:
                raise UserError(f"expected a context of {n} examples, got {len(context)}", "give one for each example")
            context = context.to(model.device)
        if labels is not None:
            labels = labels.to(model.device)
        self.model, self.n = model, n
        self.x = torch.zeros(n, *model.spec.shape, dtype=torch.int64, device=model.device)
        """The values so far, ``(n, *spec.shape)``; those to come are 0."""
        self.done = 0
        """Values pushed so far."""
        self._map = self.x.unsqueeze(2) if model.dims == 1 else self.x
        self._cursor = Cursor(n, model.grid, model.device, model.dtype)
        with torch.no_grad():
            self._condition = model.condition(labels, context)
        self._rows: Any = None
        self._here: Tensor | None = None
        self._output: Tensor | None = None
        self._conditional: Discrete | None = None

    @property
    def index(self) -> tuple[int, ...] | None:
        """Channel, row and column (channel and time) of the next value; None at the end."""
        channels, (height, width) = self.model.spec.shape[0], self.model.grid
        position, channel = divmod(self.done, channels)
        if position == height * width:
            return None
        row, column = divmod(position, width)
        return (channel, column) if self.model.dims == 1 else (channel, row, column)

    @torch.no_grad()
    def conditional(self) -> Discrete:
        """p(x_i | x_<i, c) of the next value, batch shape ``(n,)``. Raises UserError at the end of the stream."""
        if self._conditional is not None:
            return self._conditional
        index = self.index
        if index is None:
            raise UserError("expected a value to come, got the end of the stream", "start another one")
        channel, row, column = index[0], 0 if self.model.dims == 1 else index[1], index[-1]
        place = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        cursor, model = self._cursor, self.model
        if channel == 0:
            self._advance(row, column)
        if channel == 0 or not model.likelihood_of.coupled:
            cursor.column = column
            if model.groups > 1 or self._here is None:  # else the network sees none of the position: any features will do
                self._here = model.features(self._map[place])[:, :, 0, 0]
            self._output = model.positions(self._here, self._rows, self._condition, cursor)
        assert self._output is not None
        here = model.likelihood_of(self._output[:, :, None, None], self._map[place])
        self._conditional = here[:, channel, 0, 0]
        return self._conditional

    def _advance(self, row: int, column: int) -> None:
        """Move the cursor to a position; at the beginning of a row, compute what the rows above say about it."""
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
            self._rows = model.rows(above if row else torch.zeros_like(above), self._condition, cursor)
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
            raise UserError(f"expected {self.n} values for this stream, got shape {tuple(values.shape)}", "give one for each example")
        if check:
            check_integers(values, self.model.spec.discrete_levels, "values", "use the model's levels")
        if self._conditional is None:  # known values still have to pass the network
            self.conditional()
        place: tuple[Any, ...] = (slice(None), *index)
        self.x[place] = values
        self._conditional = None
        self.done += 1


def masked_head(group: Tensor, hidden: int, model: Factorised, layers: int = 1) -> Chain:
    """Output of a network that keeps the channels in order: ReLU and 1x1 convolutions.

    Args:
        group: the data's channel that each input channel belongs to.
        hidden: channels between.
        model: whose output it is.
        layers: convolutions before the output.
    """
    groups, likelihood = model.groups, model.likelihood_of
    between = channel_groups(max(hidden, groups), groups)
    chain: list[nn.Module] = []
    for _ in range(layers):
        chain += [nn.ReLU(), RasterConv2d(group, between)]
        group = between
    output = RasterConv2d(group, torch.arange(groups).repeat_interleave(likelihood.channels // groups))
    likelihood.initialize(output)
    return Chain(*chain, nn.ReLU(), output)


class ChannelHead(nn.Module):
    """Output of a network that sees none of a position's own values: a nonlinearity and a 1x1 convolution.

    With several channels that are not coupled by the likelihood, a hidden layer joins the values of the channels before.

    Args:
        width: channels of the network's features.
        hidden: channels of the hidden layer.
        model: whose output it is.
        nonlinearity: what stands before each convolution.
    """

    def __init__(self, width: int, hidden: int, model: Factorised, nonlinearity: Callable[[Tensor], Tensor] = elu) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        groups = model.groups
        between = channel_groups(max(hidden, groups), groups)
        self.trunk = Pointwise(width, len(between)) if groups > 1 else None
        self.own = RasterConv2d(model.input_groups, between, mask="A") if groups > 1 else None
        out_groups = torch.arange(groups).repeat_interleave(model.likelihood_of.channels // groups)
        self.output = RasterConv2d(between if groups > 1 else width, out_groups)
        model.likelihood_of.initialize(self.output)

    def forward(self, h: Tensor, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """Features ``(N, width, H, W)`` and the input ``(N, F, H, W)`` to the parameters of the likelihood."""
        if self.trunk is not None and self.own is not None:
            h = self.trunk(self.nonlinearity(h)) + self.own(x, cursor)
        result: Tensor = self.output(self.nonlinearity(h), cursor)
        return result
