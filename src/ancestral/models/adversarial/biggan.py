"""BigGAN (Brock et al., Large Scale GAN Training, 2018), https://arxiv.org/abs/1809.11096."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Generator as Random
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Depth, Natural, NonNegative, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import ByChoice, apart, given_classes, output_of
from ancestral.models.adversarial.dcgan import check_images
from ancestral.models.adversarial.residual import Convolution, Down, Norm, Up, check_attention
from ancestral.nn.adversarial import GameName
from ancestral.nn.normalization import BatchNorm, ConditionalBatchNorm, standing_statistics
from ancestral.nn.orthogonal import orthogonal_penalty
from ancestral.nn.projection import ProjectionHead
from ancestral.nn.resampling import doubled, halved
from ancestral.nn.self_attention import SelfAttention
from ancestral.nn.spectral import spectral_norm
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import PLAIN, Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress, Stage

_EPS = 1e-6
"""Of the norms of spectral normalization, as in the authors' code."""
_SETTLING = 64
"""Samples of a batch that statistics are taken of."""


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return spectral_norm(layer, _EPS)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.orthogonal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer, _EPS)


def _orthogonal(layer: nn.Module) -> nn.Module:
    nn.init.orthogonal_(layer.get_parameter("weight"))
    return spectral_norm(layer, _EPS)


class ConditionedNorm(nn.Module):
    """Batch normalization with gains 1 + W c and biases V c of a vector c."""

    def __init__(self, channels: int, given: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.gain, self.bias = (_linear(given, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """``(N, channels, H, W)`` and ``(N, given)`` to the same shape."""
        gain, bias = (part(given).view(len(x), -1, 1, 1) for part in (self.gain, self.bias))
        return (self.norm(x) * (1 + gain) + bias).to(x.dtype)


class DeepUp(nn.Module):
    """1x1, 3x3, 3x3 and 1x1 convolutions of a quarter of the channels; the shortcut drops channels.

    With ``double`` the sides of the map double, before the 3x3 convolutions (appendix B).
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, convolution: Convolution, *, double: bool
    ) -> None:
        super().__init__()
        narrow = max(1, inputs // 4)
        widths = ((inputs, narrow, 1), (narrow, narrow, 3), (narrow, narrow, 3), (narrow, outputs, 1))
        self.norms = nn.ModuleList(norm(w) for w, _, _ in widths)
        self.convolutions = nn.ModuleList(convolution(*sizes) for sizes in widths)
        self.doubles, self.outputs = double, outputs

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h, w)``, or twice the sides."""
        h = x
        for i, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            h = norm(h, given).relu()
            h = convolution(doubled(h) if self.doubles and i == 1 else h)
        kept = x[:, : self.outputs]
        return h + (doubled(kept) if self.doubles else kept)


class DeepDown(nn.Module):
    """1x1, 3x3, 3x3 and 1x1 convolutions of a quarter of the channels; the shortcut gains channels.

    With ``halve`` means of 2x2 places pass, before the last convolution (appendix B).
    """

    def __init__(self, inputs: int, outputs: int, convolution: Convolution, *, halve: bool) -> None:
        super().__init__()
        narrow = max(1, outputs // 4)
        widths = ((inputs, narrow, 1), (narrow, narrow, 3), (narrow, narrow, 3), (narrow, outputs, 1))
        self.convolutions = nn.ModuleList(convolution(*sizes) for sizes in widths)
        self.gained = convolution(inputs, outputs - inputs, 1) if outputs > inputs else None
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h, w)``, or half of the sides."""
        h = x
        for convolution in self.convolutions[:-1]:
            h = convolution(h.relu())
        h, kept = h.relu(), x
        if self.halve:
            h, kept = halved(h), halved(kept)
        if self.gained is not None:
            kept = torch.cat([kept, self.gained(kept)], 1)
        y: Tensor = self.convolutions[-1](h) + kept
        return y


class Generator(nn.Module):
    """Blocks that double, each conditioned on the class's vector and a part of z, or all of z if deep."""

    def __init__(
        self, latents: int, width: int, scales: int, attention: int, embedding: int,
        *, most: int, spec: Spec, classes: int, hierarchical: bool, deep: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        self.classes, self.parts = classes, scales + 1 if hierarchical and not deep else 1
        self.hierarchical, self.deep, part = hierarchical, deep, latents // self.parts
        self.embedding = nn.Linear(classes, embedding, bias=False) if classes and embedding else None
        if self.embedding is not None:
            nn.init.orthogonal_(self.embedding.weight)
        known = classes if self.embedding is None else embedding
        norm: Norm = partial(ConditionalBatchNorm, classes=classes)
        if self.embedding is not None or hierarchical:
            norm = partial(ConditionedNorm, given=known + (part if hierarchical else 0))
        outputs = [width * min(most, 2**i) for i in reversed(range(scales))]
        inputs = [width * min(most, 2**scales), *outputs][:scales]
        self.first = _linear(known + part if deep else part, inputs[0] * math.prod(grid))
        self.map = nn.Unflatten(1, (inputs[0], *grid))
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for i, (a, b) in enumerate(zip(inputs, outputs, strict=True)):
            if deep:
                self.blocks.append(DeepUp(a, a, norm, _convolution, double=False))
                self.blocks.append(DeepUp(a, b, norm, _convolution, double=True))
            else:
                self.blocks.append(Up(a, b, norm, _convolution))
            if attention and scales - 1 - i == attention:
                self.attention[str(i)] = SelfAttention(b, _orthogonal)
        self.norm = BatchNorm(outputs[-1])
        self.last, self.output = _convolution(outputs[-1], spec.shape[0], 3), output_of(spec)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to ``(N, C, H, W)``."""
        first, *parts = z.chunk(self.parts, 1)
        shared = [given_classes(labels, self.classes, z)] if self.classes else []
        if self.embedding is not None:
            shared = [self.embedding(*shared)]
        if self.hierarchical and not parts:
            parts = [first] * len(self.blocks)
        h = self.map(self.first(torch.cat([*shared, first], 1) if self.deep else first))
        for j, block in enumerate(self.blocks):
            i, again = divmod(j, 2 if self.deep else 1)
            own = [*shared, *parts[i : i + 1]]
            h = block(h, torch.cat(own, 1) if own else None)
            if str(i) in self.attention and again == self.deep:
                h = self.attention[str(i)](h)
        x: Tensor = self.output(self.last(self.norm(h).relu()).to(z.dtype))
        return x


class Critic(nn.Module):
    """Blocks that halve, some that do not, the sum over places, and the class by projection."""

    def __init__(
        self, width: int, scales: int, level: int, attention: int,
        *, most: int, spec: Spec, classes: int, deep: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [width * min(most, 2 ** (i + deep)) for i in range(scales)]
        blocks: list[nn.Module] = []
        inputs = spec.shape[0]
        if deep:
            blocks.append(_convolution(inputs, width, 3))
            inputs = width
        for i, outputs in enumerate(widths):
            if deep:
                blocks.append(DeepDown(inputs, outputs, _convolution, halve=True))
                blocks.append(DeepDown(outputs, outputs, _convolution, halve=False))
            else:
                blocks.append(Down(inputs, outputs, _convolution, halve=True, first=i == 0))
            inputs = outputs
            if i + 1 == attention:
                blocks.append(SelfAttention(outputs, _orthogonal))
        if not deep:
            blocks.extend(Down(inputs, inputs, _convolution, halve=False) for _ in range(level))
        self.blocks, self.head = nn.Sequential(*blocks), ProjectionHead(inputs, classes)
        nn.init.zeros_(self.head.output.bias)
        for part in self.head.children():
            _orthogonal(part)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = self.blocks(x).relu().sum((2, 3))
        value: Tensor = self.head(h, labels)
        return value.to(x.dtype)


class BigGAN(ByChoice):
    """SAGAN's networks made large: latents at every scale, one embedding of classes, orthogonal weights.

    With ``deep`` the blocks are bottlenecks, two at each scale, and all latents reach every block. Truncated
    latents, which are drawn again while they are beyond the threshold, give better samples and fewer kinds.

    See ``Adversarial`` for shapes.

    >>> model = BigGAN(BigGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3, truncation=0.5).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options of the BigGAN."""

        latents: Width = 120
        """Dimensions of z; of hierarchical ones a part each for the first map and every scale."""
        loss: GameName = "hinge"
        """The game: what critic and generator minimize."""
        width: Width = 96
        """Channels of the generator's last map, twice as many at each coarser one."""
        critic_width: Width = 96
        """Channels of the critic's first map, twice as many at each coarser one."""
        most: Width = 16
        """Times these channels that a map has at most."""
        scales: Depth = 5
        """Times that the sides of a map double in the generator."""
        critic_scales: Depth | None = None
        """Times that they halve in the critic; None for as often."""
        level: Natural = 1
        """Blocks of the critic after these, at the coarsest scale; a deep one has one at every scale."""
        attention: Natural = 1
        """Where maps attend to themselves: 1 at half the image's sides, 2 at a quarter; 0 nowhere."""
        embedding: Natural = 128
        """Numbers of a class's vector, which all of the generator shares; 0 for gains and biases of a
        class's own in every layer."""
        hierarchical: bool = True
        """Let latents reach every scale."""
        deep: bool = False
        """BigGAN-deep's blocks (appendix B)."""
        standing: Natural = 16
        """Batches of 64 samples that give the generator's batch norms their statistics anew, in the end; 0
        for the averages of training."""
        orthogonal: NonNegative = 1e-4
        """Weight of the orthogonal regularization of the generator."""

        @classmethod
        def tiny(cls) -> "BigGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, width=4, critic_width=4, scales=1, attention=0, embedding=3)

    sampling_options: ClassVar = frozenset({"temperature", "truncation"})

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks, narrower and of fewer scales, for two CPU cores",
            model=Config(
                latents=60, width=32, critic_width=32, scales=2, attention=1, embedding=32, orthogonal=0.0
            ),
            stages={
                "training": Optimization(
                    steps=8000, batch_size=64, ema=20_000,
                    phases=apart(
                        8e-4, 2e-4, betas=(0.0, 0.99), schedule="linear", decay_from=0.5, decay_to=1e-5
                    ),
                )
            },
        ),
        "cifar10": Recipe(
            source="the authors' code for CIFAR-10: plain widths, no embedding, no hierarchy, Adam, "
            "(0, .999), 2e-4, four updates of the critic, batch 50, 500 epochs; theirs starts from normal "
            "weights of .02",
            model=Config(
                latents=128, width=256, critic_width=256, most=1, scales=3, critic_scales=2, level=2,
                attention=0, embedding=0, hierarchical=False, orthogonal=0.0, critic_updates=4,
            ),
            stages={
                "training": Optimization(
                    steps=125_000, batch_size=50, ema=0.9999,
                    phases=apart(2e-4, 2e-4, betas=(0.0, 0.999), schedule="constant"),
                )
            },
        ),
        "imagenet128": Recipe(
            source="Brock et al. 2018, appendix C: Adam, (0, .999), 5e-5 and 2e-4, two updates of the "
            "critic, batch 2048, averages of .9999 (theirs begin at step 20,000, ours are quick at first)",
            model=Config(critic_updates=2),
            stages={
                "training": Optimization(
                    steps=140_000, batch_size=2048, ema=0.9999,
                    phases=apart(2e-4, 5e-5, betas=(0.0, 0.999), eps=1e-6, schedule="constant"),
                )
            },
        ),
        "imagenet128-deep": Recipe(
            source="the same of BigGAN-deep",
            model=Config(critic_updates=2, latents=128, width=128, critic_width=128, deep=True),
            stages={
                "training": Optimization(
                    steps=140_000, batch_size=2048, ema=0.9999,
                    phases=apart(2e-4, 5e-5, betas=(0.0, 0.999), eps=1e-6, schedule="constant"),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_images(spec, config.scales)
        parts = config.scales + 1
        if config.hierarchical and not config.deep and config.latents % parts:
            problem = f"expected latents that {parts} parts divide, got {config.latents}"
            raise UserError(problem, f"try {-(-config.latents // parts) * parts}, or --model.no-hierarchical")
        classes, halvings = self.sample_classes, config.critic_scales or config.scales
        check_images(spec, halvings)
        check_attention(config.attention, min(config.scales, halvings))
        self.generator = Generator(
            config.latents, config.width, config.scales, config.attention, config.embedding,
            most=config.most, spec=spec, classes=classes, hierarchical=config.hierarchical, deep=config.deep,
        )  # fmt: skip
        self.critic = Critic(
            config.critic_width, halvings, config.level, config.attention,
            most=config.most, spec=spec, classes=classes, deep=config.deep,
        )  # fmt: skip
        self.check_game()

    def stages(self) -> tuple[Stage, ...]:
        """See ``Adversarial.stages``; in the end the generator's batch norms meet the averaged weights."""
        (stage,) = super().stages()
        return (replace(stage, finish=self.settle if self.config.standing else None),)

    def settle(self) -> None:
        """Standing statistics: those of samples, of classes that are as frequent."""
        classes = self.sample_classes
        with standing_statistics(self.generator):
            for _ in range(self.config.standing):
                labels = torch.randint(classes, (_SETTLING,), device=self.device) if classes else None
                self.generate(self._latents(_SETTLING), labels)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """See ``Adversarial.loss``; with the generator's orthogonal regularization."""
        loss = super().loss(batch, phase, progress)
        if phase != "generator" or not self.config.orthogonal:
            return loss
        penalty = orthogonal_penalty(self._regular())
        total = loss.total + self.config.orthogonal * penalty
        return Loss(total, {**loss.terms, "orthogonal": penalty.detach()})

    def _regular(self) -> Iterator[Tensor]:
        """The generator's matrices, before spectral normalization; tables of the classes are none."""
        for layer in self.generator.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not self.generator.embedding:
                yield from (weight for weight in layer.parameters() if weight.dim() > 1)

    def draw_latents(self, n: int, options: Sampling = PLAIN, generator: Random | None = None) -> Tensor:
        """See ``Decodes.draw_latents``; truncated ones are those of the normal between the thresholds."""
        limit = options.truncation
        if limit is None:
            return super().draw_latents(n, options, generator)
        if self.config.noise != "normal":
            problem = f"expected normal latents to truncate, got {self.config.noise}"
            raise UserError(problem, "leave the truncation out")
        if limit == 0:
            return torch.zeros(n, self.config.latents, device=self.device, dtype=self.dtype)
        places: dict[str, Any] = {"device": self.device, "dtype": torch.float64, "generator": generator}
        inside = math.erf(limit / math.sqrt(2))
        u = (2 * torch.rand(n, self.config.latents, **places) - 1) * inside
        return (math.sqrt(2) * torch.erfinv(u)).to(self.dtype) * single(options.temperature)
