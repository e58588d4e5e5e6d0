"""Glow (Kingma & Dhariwal, Generative Flow with Invertible 1x1 Convolutions, 2018), https://arxiv.org/abs/1807.03039."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from ancestral.bijections import (
    ActNorm,
    Additive,
    Affine,
    Bijection,
    Composition,
    Coupling,
    Elementwise,
    Invertible1x1,
    MultiScale,
    Rescale,
    Reversible,
    Squeeze,
)
from ancestral.bijections.base import summed
from ancestral.bijections.coupling import halves
from ancestral.bijections.linear import mix
from ancestral.bijections.shape import check_squeezable
from ancestral.configuration import Depth, Width
from ancestral.errors import UserError
from ancestral.models.flow.base import Flow
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(
    steps=176_000, batch_size=512, optimizer="adamax", learning_rate=1e-3, schedule="constant", warmup=1000,
    gradient_clip=None,
)  # fmt: skip


class EdgeConv2d(nn.Module):
    """A 3x3 convolution that knows where the image ends: a further input is 1 on the padding, 0 elsewhere."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.edge = nn.Parameter(torch.empty(outputs, 1, 3, 3))

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H, W)``, times ``scale`` and plus ``bias``, ``(outputs,)``.

        The scale is that of the weights: they are fewer than the values of a map.
        """
        scale = scale.view(-1, 1, 1, 1)
        weight, edge = self.weight * scale, self.edge * scale
        border = x.new_zeros(1, 1, x.shape[2], x.shape[3])
        border = pad(border, (1, 1, 1, 1), value=1.0)
        if x.shape[1] >= len(weight):
            return conv2d(x, weight, bias, padding=1) + conv2d(border, edge)
        # The fewer inputs are what a further channel is cheap for.
        seen = torch.cat([pad(x, (1, 1, 1, 1)), border.expand(len(x), -1, -1, -1)], 1)
        return conv2d(seen, torch.cat([weight, edge], 1), bias)


class ZeroConv2d(nn.Module):
    """A 3x3 convolution that is zero at first; its output times e^(3 s), s learned."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = EdgeConv2d(inputs, outputs)
        for parameter in self.convolution.parameters():
            nn.init.zeros_(parameter)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H, W)``."""
        scale = (3 * self.log_scale).exp()
        output: Tensor = self.convolution(x, scale, self.bias * scale)
        return output


class CouplingNetwork(nn.Module):
    """Convolutions 3x3, 1x1, 3x3; activation norm and a rectifier after the first two (section 3.3).

    The norms' shifts and scales are part of the convolutions' weights, which spares passes over the maps.
    """

    def __init__(self, inputs: int, outputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = EdgeConv2d(inputs, width)
        self.second = nn.Parameter(torch.empty(width, width, 1, 1))
        self.norms = nn.ModuleList(ActNorm(width, speed=3.0) for _ in range(2))
        self.last = ZeroConv2d(width, outputs)
        for parameter in (*self.first.parameters(), self.second):
            nn.init.normal_(parameter, 0, 0.05)
        self.classes = nn.Linear(classes, width, bias=False) if classes else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What stays ``(N, inputs, H, W)``, and the class one-hot, to ``(N, outputs, H, W)``."""
        h = self._normalized(0, lambda scale, bias: self.first(x, scale, bias))
        if self.classes is not None:
            h = h + self.classes(context)[:, :, None, None]
        h = h.relu()
        h = self._normalized(1, lambda s, b: conv2d(h, self.second * s.view(-1, 1, 1, 1), b)).relu()
        output: Tensor = self.last(h)
        return output

    def _normalized(self, i: int, convolution: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        norm = self.norms[i]
        assert isinstance(norm, ActNorm)
        if norm.training and not norm.is_started:
            norm.start(convolution(torch.ones_like(norm.shift), torch.zeros_like(norm.shift)))
        return convolution(norm.scale, norm.shift * norm.scale)


class NormalizedMix(Bijection):
    """Activation norm and the 1x1 convolution after it, computed as one convolution: W e^s x + W e^s b."""

    def __init__(self, channels: int, *, lu: bool) -> None:
        super().__init__()
        self.norm, self.mixing = ActNorm(channels, speed=3.0), Invertible1x1(channels, lu=lu)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        self.norm.start(x)
        matrix = self.mixing.matrix() * self.norm.scale
        with torch.autocast(x.device.type, enabled=False):  # what is inverted is not rounded
            bias = matrix @ self.norm.shift
        z = mix(matrix, x, bias)
        return z, self.norm.log_det(x) + self.mixing.log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        between, first = self.mixing.inverse(z)
        x, second = self.norm.inverse(between)
        return x, first + second


class LearnedTop(Bijection):
    """The mean and the scale of the last noise at each place, of each class: z = (x + m) e^s."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.shape, self.affine = shape, Affine("exp")
        self.network = ZeroConv2d(1, 2 * shape[0])  # of zeros: what it knows is the edge
        self.classes = nn.Linear(classes, 2 * shape[0], bias=False) if classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def _given(self, x: Tensor, context: Tensor | None) -> Tensor:
        parameters: Tensor = self.network(x.new_zeros(1, 1, *self.shape[1:]))
        if self.classes is not None:
            parameters = parameters + self.classes(context)[:, :, None, None]
        return parameters.expand(len(x), -1, -1, -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        z, log_det = self.affine.forward(x, self._given(x, context))
        return z, summed(log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        x, log_det = self.affine.inverse(z, self._given(z, context))
        return x, summed(log_det)


class Glow(Flow):
    """Levels of steps: activation norm, an invertible 1x1 convolution, a coupling (table 1 and figure 2).

    A level squeezes the image, then has ``depth`` steps; half of the channels go on to the next level, the
    others are noise given those. Height and width must be divisible by 2 for each level. Classes condition
    the couplings' networks as well as the last noise, where the authors have them in the last noise alone,
    beside a classifier.

    See ``Flow`` for shapes and figures.

    >>> model = Glow(Glow.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> x = model.sample(3, temperature=0.7)
    >>> torch.equal(model.decode(model.embed(x)), x)
    True
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Flow.Config):
        """Options of Glow."""

        levels: Depth = 3
        """L, resolutions: each has half the height and width of the one before."""
        depth: Depth = 32
        """K, steps at each resolution."""
        width: Width = 512
        """Channels inside a coupling's network."""
        coupling: Literal["affine", "additive"] = "affine"
        """How a coupling changes values: by shift and scale, or by shift alone."""
        lu: bool = True
        """Keep 1x1 convolutions as their LU decomposition (equation 10)."""
        reversible: bool = False
        """Compute activations again from the outputs in the backward pass: memory for one step at a time, in
        place of all, for nearly twice the time."""

        @classmethod
        def tiny(cls) -> "Glow.Config":
            """Small enough for a test."""
            return cls(levels=1, depth=2, width=8)

    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores",
            model=Config(levels=2, depth=8, width=64, class_conditional=False),
            stages={"training": Optimization(steps=20_000, batch_size=64, learning_rate=1e-3, ema=0.999)},
        ),
        "cifar10": Recipe(
            source="Kingma & Dhariwal 2018, table 4 and the authors' code: L=3, K=32, 512 channels, Adamax, "
            "1e-3, batch 512 on 8 GPUs, 10 epochs of warm-up, 1800 epochs; without their decay of the second "
            "moment by epochs; shifts of 10 %: --images.shift 3",
            model=Config(),
            stages={"training": _PAPER},
        ),
        "imagenet32": Recipe(
            source="the same, K=48; steps are ours", model=Config(depth=48), stages={"training": _PAPER}
        ),
        "imagenet64": Recipe(
            source="the same, L=4, K=48; steps are ours", model=Config(levels=4, depth=48),
            stages={"training": _PAPER},
        ),
        "celebahq256": Recipe(
            source="the same, L=6, K=32, additive couplings; images of 5 bits: --images.levels 32; steps are "
            "ours",
            model=Config(levels=6, coupling="additive", reversible=True),
            stages={"training": replace(_PAPER, batch_size=40)},
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            raise UserError(
                f"expected images (C, H, W), got shape {spec.shape}", "use realnvp or maf for tables"
            )
        check_squeezable(spec.shape[1:], config.levels)
        elementwise: Elementwise = Additive() if config.coupling == "additive" else Affine("sigmoid")
        shape, levels, shapes, factored = (
            spec.shape,
            list[Bijection](),
            list[tuple[int, ...]](),
            list[Bijection](),
        )
        for i in range(config.levels):
            shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
            steps: list[Bijection] = [Squeeze()]
            for _ in range(config.depth):
                steps.append(NormalizedMix(shape[0], lu=config.lu))
                steps.append(self._coupling(elementwise, shape[0]))
            shapes.append(shape)
            if i == config.levels - 1:
                steps.append(LearnedTop(shape, self.sample_classes))
            else:
                half = shape[0] // 2
                factored.append(Coupling(Affine("exp"), ZeroConv2d(half, 2 * half)))
                shape = (half, *shape[1:])
            levels.append(Reversible(*steps) if config.reversible else Composition(*steps))
        first: list[Bijection] = [] if spec.levels is None else [Rescale(spec.levels / 2, spec.levels)]
        self.flow = Composition(*first, MultiScale(levels, shapes, factored))

    def _coupling(self, elementwise: Elementwise, channels: int) -> Coupling:
        kept, changed = halves(channels)
        outputs = elementwise.parameters * changed
        return Coupling(elementwise, CouplingNetwork(kept, outputs, self.config.width, self.sample_classes))
