"""WaveNet (van den Oord et al., A Generative Model for Raw Audio, 2016), https://arxiv.org/abs/1609.03499."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from ancestral.batch import Batch
from ancestral.capabilities import Lengthens
from ancestral.configuration import Depth, Range, Width
from ancestral.errors import UserError
from ancestral.models.autoregressive.base import Autoregressive, Shifted
from ancestral.models.autoregressive.stream import Stream
from ancestral.models.autoregressive.wavenet_stream import compiles, generate
from ancestral.nn.causal import RasterConv2d
from ancestral.nn.gated_unit import gated_unit
from ancestral.nn.receptive_field import shifted_right, through
from ancestral.nn.streaming import Cursor, Injection, InputShift, Pointwise, repeated
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec

WINDOW = 2**15
"""Values of a long sound whose log-probabilities are computed at once."""
_MOST_LEVELS = 2**12
"""Of ordered values that a softmax has outputs for: with more they would be nearly all of the network."""
_WORTH_COMPILING = 1000
"""Fewest steps that take the stream as long as it takes to load what was compiled once."""


class DilatedLayer(nn.Module):
    r"""A gated dilated causal convolution (figure 4).

    :math:`\tanh(W_f * x + V_f h) \odot \sigma(W_g * x + V_g h)` (equations 2 and 3).
    """

    def __init__(
        self, config: "WaveNet.Config", dilation: int, condition_width: int, *, last: bool = False
    ) -> None:
        super().__init__()
        self.gates = RasterConv2d(
            config.width, 2 * config.gate_width, left=config.kernel - 1, dilation=dilation
        )
        self.condition = Injection(condition_width, 2 * config.gate_width) if condition_width else None
        self.dropout = nn.Dropout(config.dropout)
        self.residual = None if last else Pointwise(config.gate_width, config.width)

    def forward(self, x: Tensor, condition: Tensor | None, cursor: Cursor | None) -> tuple[Tensor, Tensor]:
        """``(N, width, 1, T)`` to the same shape, and the gated units ``(N, gate_width, 1, T)``."""
        gates = self.gates(self.dropout(x), cursor)
        if self.condition is not None:
            gates = gates + repeated(self.condition(condition, cursor), gates)
        units = gated_unit(gates)
        return x if self.residual is None else x + self.residual(units), units


class WaveNet(Shifted, Lengthens):
    """A stack of dilated causal convolutions over a sequence ``(N, C, T)``.

    Images and code maps are read as sequences, in raster order. Global conditioning is by class, local
    conditioning by a context ``(N, C', T')`` (for images a map) that is repeated up to the data's size, of
    sounds layer by layer. Sounds may be of any length.
    """

    dims = 1
    repeated = (*Shifted.repeated, DilatedLayer)

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options of the WaveNet."""

        kind: ClassVar = "wavenet"
        width: Width = 64
        """Residual channels."""
        gate_width: Width = 64
        """Channels of the gated units."""
        skip_width: Width = 128
        """Channels of the skip connections."""
        kernel: Annotated[int, Range(least=2, most=2**20)] = 2
        """Size of the causal kernel."""
        layers: Annotated[int, Range(least=1, most=30)] = 10
        """Layers of one cycle, of dilations 1, 2, 4, ..."""
        cycles: Depth = 3
        """Times that the cycle of dilations is repeated."""

        @classmethod
        def tiny(cls) -> "WaveNet.Config":
            """Small enough for a test."""
            return cls(width=6, gate_width=6, skip_width=6, layers=2, cycles=1, condition_width=4)

    default_data: ClassVar = "tones"
    recipes: ClassVar = {
        "small": Recipe(
            source="a start for half an hour of speech at 8 kHz, mu-law, on two CPU cores; not tuned",
            model=Config(width=48, gate_width=48, layers=9, cycles=2),
            stages={"training": Optimization(steps=6000, batch_size=4, learning_rate=2e-3, compile=True)},
        ),
        "tones": Recipe(
            source="a start for the embedded tones; not tuned",
            model=Config(width=32, gate_width=32, skip_width=64, layers=8, cycles=2),
            stages={"training": Optimization(steps=1000, batch_size=4, learning_rate=8e-3)},
        ),
        "images": Recipe(
            source="a quarter of an hour on two CPU cores on Fashion-MNIST (docs/figures.md); not tuned",
            model=Config(layers=8, cycles=2, likelihood="logistic-mixture", class_conditional=False),
            stages={"training": Optimization(steps=2400, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "mixture": Recipe(
            source="a public recipe: 24 layers in 4 stacks, kernel 3, 128 residual, 256 gate and 128 skip "
            "channels, 10 logistics",
            model=Config(
                width=128,
                gate_width=128,
                skip_width=128,
                kernel=3,
                layers=6,
                cycles=4,
                likelihood="logistic-mixture",
            ),
            stages={"training": Optimization(steps=1_000_000, batch_size=8, learning_rate=1e-3, ema=0.9999)},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        if config.likelihood == "categorical" and spec.ordered and (spec.levels or 0) > _MOST_LEVELS:
            problem = f"expected at most {_MOST_LEVELS:,} levels for a softmax over them, got {spec.levels:,}"
            raise UserError(problem, "take the likelihood logistic-mixture")
        # A softmax over mu-law levels goes with a vector for each level, a mixture with the level's height.
        super().__init__(
            config,
            spec,
            embedding_width=config.width,
            table=config.likelihood == "categorical" or not spec.ordered,
        )
        self.shift = InputShift(wrap=False)
        self.first = RasterConv2d(len(self.input_groups), config.width, left=config.kernel - 1)
        dilations = [2**i for _ in range(config.cycles) for i in range(config.layers)]
        self.layers = nn.ModuleList(
            DilatedLayer(config, dilation, self.condition_width, last=i == len(dilations) - 1)
            for i, dilation in enumerate(dilations)
        )
        # The sum of all skip connections is one product, of weights as large as if each had one of its own.
        self.skips = Pointwise(len(dilations) * config.gate_width, config.skip_width)
        with torch.no_grad():
            self.skips.weight.mul_(len(dilations) ** 0.5)
        self.merge = Pointwise(config.skip_width, config.skip_width)
        self.head = self.channel_head(config.skip_width, relu)

    @property
    def reach(self) -> int:
        """How many values back a value depends on."""
        past = self.config.kernel - 1
        return 1 + past + past * self.config.cycles * (2**self.config.layers - 1)

    def log_probs(self, batch: Batch) -> Tensor:
        """See ``Autoregressive.log_probs``.

        Without gradients, long sounds are seen in windows that begin as far before their values as these
        depend on, so that the memory need not hold the features of all; the sums are the same.
        """
        length = batch.x.shape[-1]
        if torch.is_grad_enabled() or not self.spec.sequential or length <= WINDOW + self.reach:
            return super().log_probs(batch)
        own = None if batch.lengths is None else (batch.lengths, length)
        condition = self.condition(batch.labels, batch.contexts, own)
        # A window begins where a place of the condition does.
        step = length // condition.shape[3] if condition is not None and condition.shape[3] > 1 else 1
        window, before = -(-WINDOW // step) * step, -(-self.reach // step) * step
        parts = []
        for start in range(0, length, window):
            begin, end = max(0, start - before), min(length, start + window)
            x, here = batch.x[..., begin:end], condition
            if step > 1:
                here = condition[..., begin // step : end // step]
            output = self.positions(self.features(self.on_grid(x)), None, here)
            likelihood = self.likelihood_of(output.reshape(*output.shape[:2], *x.shape[2:]), x)
            parts.append(likelihood.log_prob(x)[..., start - begin :])
        return torch.cat(parts, -1)

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``: as many steps back as kernels and dilations add up to."""
        field = through(self.first.receptive_field(self.grid), shifted_right(self.grid))
        for layer in self.layers:
            assert isinstance(layer, DilatedLayer)
            field = field | through(layer.gates.receptive_field(self.grid), field)
        return field

    def trunk(self, x: Tensor, rows: None, condition: Tensor | None, cursor: Cursor | None = None) -> Tensor:
        """See ``Shifted.trunk``."""
        h = self.first(self.shift(x, cursor), cursor)
        units = []
        for layer in self.layers:
            h, here = layer(h, condition, cursor)
            units.append(here)
        return self.merge(relu(self.skips(torch.cat(units, 1))))

    def run(
        self, stream: Stream, uniforms: Tensor, options: Sampling, *, x: Tensor | None, known: Tensor | None,
        last: int, progress: Callable[[float], None] | None,
    ) -> Tensor:  # fmt: skip
        """See ``Autoregressive.run``; ``generate`` draws long sequences where it can."""
        given: dict[str, Any] = {"x": x, "known": known}
        usual = type(self).trunk is WaveNet.trunk
        if last < _WORTH_COMPILING or not (usual and compiles(self)):
            return super().run(stream, uniforms, options, **given, last=last, progress=progress)
        first = {name: tensor.flatten(2)[..., :last] for name, tensor in given.items() if tensor is not None}
        noise, condition = uniforms.flatten(2)[..., :last], stream.condition
        repeat = 1 if condition is None else self.grid[1] // condition.shape[3]
        drawn = generate(self, noise, condition, options, repeat=repeat, **first, progress=progress)
        return pad(drawn, (0, uniforms[0].numel() - last)).view(uniforms.shape)
