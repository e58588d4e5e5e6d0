r"""What all autoregressive models share: :math:`p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)`.

One network serves training and a stream. The order is raster order, channels in order within a position. A
model defines two functions of features of the input. ``rows`` sees the rows above each row and is computed a
row at a time; ``positions`` sees the past of each position and what ``rows`` made of it. Whole maps go
through both in training; a ``Stream`` asks for one place after another (see ``ancestral.nn.streaming``).
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu
from torch.nn.utils import parametrize

from ancestral.batch import Batch
from ancestral.capabilities import Completes, broadcast_known
from ancestral.configuration import Blocks, Share, Width
from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import Likelihood
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.models.autoregressive.heads import ChannelHead
from ancestral.models.autoregressive.stream import Stream
from ancestral.nn.conditioning import Conditioner
from ancestral.nn.convolutional import ResidualBlock
from ancestral.nn.embedding import Embedding
from ancestral.nn.streaming import Cursor, shift_down
from ancestral.sampling import PLAIN, Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress
from ancestral.units import bits, bits_per_dim, rate_of


class Autoregressive(Completes):
    """Base of the autoregressive models.

    Shapes: x ``(N, C, H, W)`` integers, of images or of maps of codes, or sequences ``(N, C, T)``. Likelihood
    figures are exact, in nats
    for each example. A class-conditional model without labels is the even mixture of its classes.

    >>> from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
    >>> model = GatedPixelCNN(GatedPixelCNN.Config.tiny(), Spec(shape=(1, 2, 2), levels=2)).eval()
    >>> every = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2)
    >>> torch.allclose(model.log_likelihood(Batch(every)).exp().sum(), torch.tensor(1.0))
    True
    >>> x = model.quantile(torch.full((1, 1, 2, 2), 0.5))  # the median of each value given those before
    >>> stream = model.stream(1)
    >>> bool(stream.conditional().quantile(torch.tensor([0.5])) == x[:, 0, 0, 0])
    True
    """

    takes_contexts = True
    sampling_options = frozenset({"temperature", "top_k", "top_p"})
    repeated: ClassVar[tuple[type[nn.Module], ...]] = (ResidualBlock,)
    dims: ClassVar[Literal[1, 2]] = 2
    """Whether the network runs over sequences, to which it unrolls images and code maps in raster order, or
    over maps."""
    sequences: ClassVar[bool] = False
    """Whether a network over maps takes a sequence ``(C, T)`` for a map of one row."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of every autoregressive model."""

        likelihood: Literal["categorical", "logistic-mixture", "coupled-logistic-mixture"] = "categorical"
        """Distribution of a value given the past; code maps take categorical. Coupled: channels share
        components and shift each other."""
        components: Width = 10
        """Components of the logistic mixture."""
        class_conditional: bool = True
        """Condition on the class where the data have classes."""
        condition_width: Width = 64
        """Features of what the model is conditioned on: class and contexts."""
        context_blocks: Blocks = 2
        """Residual blocks that a context passes before it conditions the model."""
        dropout: Share = 0.0
        """Share of the features dropped in training."""

    def __init__(
        self, config: Config, spec: Spec, *, embedding_width: int = 1, table: bool | None = None
    ) -> None:
        super().__init__(config, spec)
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        takes_sequences = self.dims == 1 or self.sequences
        if len(spec.shape) != 3 and not (takes_sequences and len(spec.shape) == 2):
            sequences = " or sequences (C, T)" if takes_sequences else ""
            raise UserError(
                f"expected images or code maps (C, H, W){sequences}, got shape {spec.shape}",
                "use wavenet for sequences (C, T)",
            )
        self.embedding = Embedding(spec, embedding_width, table=table)
        self.groups = 1 if self.likelihood_of.coupled else spec.shape[0]
        """Channels that the network keeps in order; a coupled likelihood does that itself, and the network
        sees none of a position."""
        self.input_groups = (
            self.embedding.groups if self.groups > 1 else torch.zeros_like(self.embedding.groups)
        )
        self.conditioner = Conditioner(
            spec,
            config.condition_width,
            class_conditional=config.class_conditional,
            blocks=config.context_blocks,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of what the network runs over."""
        shape = self.spec.shape
        flat = self.dims == 1 or len(shape) == 2
        return (1, math.prod(shape[1:])) if flat else (shape[1], shape[2])

    @property
    def condition_width(self) -> int:
        """Features of what the network is conditioned on; 0 for a model without conditions."""
        return self.config.condition_width if self.sample_classes or self.spec.contexts else 0

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0

    def rows(self, above: Tensor, condition: Any, cursor: Cursor | None = None) -> Any:
        """What the rows above say about each row, for ``positions``.

        Args:
            above: features ``(N, F, H, W)`` shifted down by a row; in a stream the row above ``(N, F, 1,
                W)``.
            condition: what ``condition`` returned, whole in a stream too.
            cursor: the place in a stream.
        """
        return None

    @abstractmethod
    def positions(self, x: Tensor, rows: Any, condition: Any, cursor: Cursor | None = None) -> Tensor:
        """The output ``(N, likelihood_of.channels, H, W)``, or ``(N, channels)`` at the cursor's place.

        Args:
            x: features ``(N, F, H, W)``; in a stream ``(N, F)``, of which only channels before the current
                one are known.
            rows: what ``rows`` returned, for the cursor's row in a stream.
            condition: what ``condition`` returned, whole in a stream too.
            cursor: the place in a stream.
        """

    def features(self, x: Tensor) -> Tensor:
        """Integers ``(N, C, H, W)`` as the network's input, ``(N, F, H, W)``."""
        return self.embedding(x, self.dtype)

    def condition(
        self, labels: Tensor | None, contexts: Sequence[Tensor], own: tuple[Tensor, int] | None = None
    ) -> Any:
        """What the network is conditioned on: a map ``(N, condition_width, H, W)`` or None.

        A size of 1 stands for the same everywhere. Of sequences, W divides that of the data: a place of the
        map stands for several; ``own`` says of padded ones how many values of how many are theirs.
        """
        condition = self.conditioner(labels if self.sample_classes else None, contexts, self.dtype, own)
        return self.on_grid(condition) if self.spec.contexts else condition

    def on_grid(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` of the data's shape as what the network runs over, ``(N, C, H, W)``."""
        return x.flatten(2)[:, :, None] if self.dims == 1 or x.dim() == 3 else x

    def conditionals(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        contexts: Sequence[Tensor] = (),
        lengths: Tensor | None = None,
    ) -> Discrete:
        """p(x_i | x_<i, c) at every position at once, batch shape that of ``x``.

        Lengths are those of padded sounds, as in ``Batch``: nothing is seen of their contexts beyond.

        Raises:
            UserError: examples or contexts of another shape, or no labels for a model with classes.
        """
        if not self.spec.fits(x.shape):
            raise UserError(
                f"expected examples of shape {self.spec.shape}, got {tuple(x.shape[1:])}",
                "use data of the model's own shape",
            )
        if self.sample_classes and labels is None:
            raise UserError(
                "expected labels for a class-conditional model, got none",
                "log_likelihood alone averages over the classes",
            )
        features = self.features(self.on_grid(x))
        condition = self.condition(labels, contexts, None if lengths is None else (lengths, x.shape[-1]))
        rows = self.rows(shift_down(features), condition)
        output = self.positions(features, rows, condition)
        return self.likelihood_of(output.reshape(*output.shape[:2], *x.shape[2:]), x)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``."""
        return "exact"

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x|c), or without labels log of the mean of p(x|c) over the classes; ``(N,)`` nats."""
        self.check_importance_samples(k)
        if self.sample_classes and batch.labels is None:
            by_class = []
            for c in range(self.sample_classes):
                labels = torch.full((batch.x.shape[0],), c, device=batch.x.device)
                by_class.append(self.log_likelihood(replace(batch, labels=labels)))
            return torch.stack(by_class).logsumexp(0) - math.log(self.sample_classes)
        return batch.without_padding(self.log_probs(batch)).flatten(1).sum(1)

    def log_probs(self, batch: Batch) -> Tensor:
        """Log p(x_i | x_<i, c) of each value, ``(N, *shape)`` nats."""
        given = (batch.labels, batch.contexts, batch.lengths)
        return self.conditionals(batch.x, *given).log_prob(batch.x)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Negative log-likelihood, in bits for each value: bits/dim of data, bits/code of a map of codes.

        The term says whether it is given the label. Values of short sounds weigh as those of long ones.
        """
        nats = -self.log_likelihood(batch)
        loss = bits_per_dim(nats.mean(), batch.x[:1].numel())
        given = "given_label_" if self.sample_classes and batch.labels is not None else ""
        shown = loss if batch.lengths is None else bits(nats.sum() / batch.counts.sum())
        return Loss(loss, {given + rate_of(self.spec.domain): shown.detach()})

    def declared_past(self) -> Tensor:
        """Whether output i may depend on input j, ``(D, D)`` boolean on the CPU, for ``certify``.

        Values are numbered in raster order, with channels in order within a position. The whole past unless
        ``receptive_field`` says less.
        """
        channels = self.spec.shape[0]
        past = torch.ones(self.spec.dims, self.spec.dims, dtype=torch.bool).tril(-1)
        positions = torch.eye(self.spec.dims // channels, dtype=torch.bool)
        for channel in range(channels):  # a position's features may know all of its values but the last
            field = self.receptive_field(own=channel < self.groups - 1)
            if field is not None:
                past[:, channel::channels] &= (field | positions).repeat_interleave(channels, 0)
        return past

    def receptive_field(self, *, own: bool) -> Tensor | None:
        """Whether a position's output sees another's input, ``(H W, H W)`` boolean; None for the whole past.

        Args:
            own: of input channels that a position's features know, at the position itself; of the others
                otherwise.
        """
        return None

    def stream(self, n: int, labels: Tensor | None = None, contexts: Sequence[Tensor] = ()) -> Stream:
        """The conditionals of ``n`` examples, one value after another.

        Raises:
            UserError: labels or contexts that do not fit the model, or a model in training mode.
        """
        return Stream(self, n, labels, contexts)

    def check_sampling(self, options: Sampling) -> None:
        """See ``Model.check_sampling``; no more levels can be kept than there are."""
        super().check_sampling(options)
        levels = self.spec.discrete_levels
        top_k = single(options.top_k)
        if top_k is not None and top_k > levels:
            raise UserError(
                f"expected top-k of 1..{levels}, got {top_k}", "leave it out to draw from all levels"
            )

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``: one value after another, with the multiplications of one pass."""
        uniforms = torch.rand((n, *self.spec.shape), device=self.device, generator=generator)
        return self.quantile(uniforms, labels, contexts=contexts, options=options, progress=progress)

    def fill(
        self, x: Tensor, known: Tensor, labels: Tensor | None, contexts: tuple[Tensor, ...],
        options: Sampling, *, generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Completes.fill``: each unknown value given all that come before it in raster order."""
        uniforms = torch.rand(tuple(x.shape), device=self.device, generator=generator)
        given: dict[str, Any] = {"contexts": contexts, "x": x, "known": known}
        return self.quantile(uniforms, labels, **given, options=options, progress=progress)

    @torch.no_grad()
    def quantile(
        self, uniforms: Tensor, labels: Tensor | None = None, *, contexts: Sequence[Tensor] = (),
        options: Sampling = PLAIN, x: Tensor | None = None, known: Tensor | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """The integers at which each conditional's cumulative distribution passes the uniforms.

        The same noise gives the same integers. With ``x`` and ``known``, known values stay and each other
        value follows from all that come before it in raster order; those that come later have no influence.

        Args:
            uniforms: noise in [0, 1), ``(n, *spec.shape)``.
            labels: classes ``(n,)``, which a class-conditional model needs.
            contexts: what the model is conditioned on.
            options: how the conditionals are sharpened.
            x: examples to complete, ``(n, *spec.shape)``.
            known: which values of ``x`` stay, boolean, broadcast to ``x``.
            progress: called with the share of the values that is drawn, at most a hundred times.

        Raises:
            UserError: an argument out of its range or of another shape.
        """
        self.check_sampling(options)
        shape = (*uniforms.shape[:1], *self.spec.shape)
        if tuple(uniforms.shape) != shape:
            raise UserError(
                f"expected noise of shape {shape}, got {tuple(uniforms.shape)}",
                "give one uniform number for each value",
            )
        if not bool(((uniforms >= 0) & (uniforms < 1)).all()):
            raise UserError(
                "expected noise in [0, 1), got numbers outside it, or NaN", "give uniform numbers: torch.rand"
            )
        if (x is None) != (known is None):
            raise UserError(
                "expected x and known together, got one of them", "known says which values of x stay"
            )
        if x is not None and known is not None:
            self.spec.check(x)
            if len(x) != len(uniforms):
                raise UserError(
                    f"expected {len(uniforms)} examples to complete, got {len(x)}", "give as many as uniforms"
                )
            known = broadcast_known(known, shape).to(self.device)
            x = x.to(self.device).long()
        uniforms = uniforms.to(self.device)
        stream = self.stream(len(uniforms), labels, contexts)
        last = self.spec.dims  # values until none is left to draw
        if known is not None:
            unknown = (~known).any(0).movedim(0, -1).flatten().nonzero()
            last = int(unknown[-1]) + 1 if len(unknown) else 0
        values = self.run(stream, uniforms, options, x=x, known=known, last=last, progress=progress)
        drawn = values if x is None or known is None else torch.where(known, x, values)
        return drawn.to(self.spec.dtype, copy=True)

    def run(
        self, stream: Stream, uniforms: Tensor, options: Sampling, *, x: Tensor | None, known: Tensor | None,
        last: int, progress: Callable[[float], None] | None,
    ) -> Tensor:  # fmt: skip
        """Let a new stream draw its first ``last`` values: ``quantile``, whose arguments are checked by now.

        Returns integers ``(n, *spec.shape)``, of which those that are not drawn may be any.
        """
        temperature, top_k, top_p = single(options.temperature), single(options.top_k), single(options.top_p)
        # Inference mode saves a tenth of the time of small operations; what comes out of it is copied below.
        with parametrize.cached(), torch.inference_mode():
            while stream.done < last:
                index = stream.index
                assert index is not None
                place: tuple[Any, ...] = (slice(None), *index)
                conditional = stream.conditional()
                values = conditional.quantile(uniforms[place], temperature, top_k, top_p)
                if x is not None and known is not None:
                    values = torch.where(known[place], x[place], values)
                stream.push(values, check=False)
                if progress and 100 * stream.done // last > 100 * (stream.done - 1) // last:
                    progress(stream.done / last)
        return stream.x


class Shifted(Autoregressive):
    """Base of the networks whose trunk sees the positions before alone.

    The channels of a position itself join at the head.
    """

    head: ChannelHead

    def channel_head(self, width: int, nonlinearity: Callable[[Tensor], Tensor] = elu) -> ChannelHead:
        """The head of a trunk of ``width`` features, with new weights."""
        return ChannelHead(
            width, groups=self.groups, input_groups=self.input_groups, likelihood=self.likelihood_of,
            nonlinearity=nonlinearity,
        )  # fmt: skip

    @abstractmethod
    def trunk(self, x: Tensor, rows: Any, condition: Any, cursor: Cursor | None = None) -> Tensor:
        """Features ``(N, width, H, W)``, or ``(N, width)`` at the cursor's place. See ``positions``."""

    def positions(self, x: Tensor, rows: Any, condition: Any, cursor: Cursor | None = None) -> Tensor:
        """See ``Autoregressive.positions``. In a stream, a position's channels share a pass of the trunk."""

        def compute() -> Tensor:
            return self.trunk(x, rows, condition, cursor)

        output: Tensor = self.head(compute() if cursor is None else cursor.once(self, compute), x, cursor)
        return output
