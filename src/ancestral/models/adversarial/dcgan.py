"""DCGAN (Radford et al., Unsupervised Representation Learning with DCGANs, 2015), https://arxiv.org/abs/1511.06434."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ancestral.configuration import Depth, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import ByChoice, both, output_of
from ancestral.nn.convolutional import check_stride
from ancestral.nn.normalization import BatchNorm, ConditionalBatchNorm
from ancestral.nn.projection import ProjectionHead
from ancestral.nn.spectral import spectral_norm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

CriticNorm = Literal["batch", "spectral", "none"]

_MILLION = Optimization(
    steps=15_625, batch_size=64, ema=20_000,
    phases=both(learning_rate=5e-4, betas=(0.0, 0.99), schedule="linear", decay_from=0.5, decay_to=2.5e-5),
)  # fmt: skip
"""A million images, in about half an hour on two CPU cores."""


class Generator(nn.Module):
    """z to a small map, then transposed convolutions that double its sides, down to the image.

    Batch normalization and rectifiers stand between them; with classes its gains and biases are the class's.
    A ``refined`` one ends with a convolution of 3x3 of the full map (Miyato et al., 2018, table 3).
    """

    def __init__(
        self, latents: int, width: int, scales: int, spec: Spec, classes: int = 0, *, refined: bool = False
    ) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [width * 2**i for i in reversed(range(scales + refined))]
        self.first = nn.Linear(latents, widths[0] * grid[0] * grid[1], bias=False)
        self.map = nn.Unflatten(1, (widths[0], *grid))
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, classes) for w in widths)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            for before, after in pairwise([*widths, spec.shape[0]])
        )
        if refined:
            self.convolutions[-1] = nn.Conv2d(widths[-1], spec.shape[0], 3, padding=1)
        self.output = output_of(spec)
        _initialize(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to ``(N, C, H, W)``."""
        h = self.map(self.first(z))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(norm(h, labels).relu())
        x: Tensor = self.output(h.to(z.dtype))
        return x


class Critic(nn.Module):
    """Convolutions that halve the sides, with leaky rectifiers, to one number.

    With classes the class's vector is multiplied with the last features, and added (Miyato & Koyama, 2018,
    https://arxiv.org/abs/1802.05637). A ``refined`` one has convolutions of 3x3 before each that halves,
    which widen, and one at the end (Miyato et al., 2018, table 3).
    """

    def __init__(
        self,
        width: int,
        scales: int,
        norm: CriticNorm,
        spec: Spec,
        classes: int = 0,
        *,
        refined: bool = False,
    ) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [width * 2**i for i in range(scales + refined)]
        # (channels, sides of the kernel, stride)
        layers = [(w, 4, 2) for w in widths]
        if refined:
            layers = [layer for w in widths for layer in ((w, 3, 1), (w, 4, 2))][:-1]
        self.convolutions, self.norms, inputs = nn.ModuleList(), nn.ModuleList(), spec.shape[0]
        for i, (outputs, kernel, stride) in enumerate(layers):
            normalized = norm == "batch" and i > 0
            # Spectral norm is later networks', which have biases.
            bias = norm != "batch"
            self.convolutions.append(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=bias))
            self.norms.append(BatchNorm(outputs) if normalized else nn.Identity())
            inputs = outputs
        features = widths[-1] * grid[0] * grid[1]
        self.head = ProjectionHead(features, classes)
        _initialize(self)
        if norm == "spectral":
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(module)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = leaky_relu(norm(convolution(h)), 0.2)
        value: Tensor = self.head(h.flatten(1), labels)
        return value.to(x.dtype)


def _initialize(module: nn.Module) -> None:
    """Weights from N(0, .02), gains of batch normalization from N(1, .02), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            bias = getattr(layer, "bias", None)
            if isinstance(bias, Tensor):
                nn.init.zeros_(bias)
        if isinstance(layer, BatchNorm) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, 0.02)
        if isinstance(layer, ConditionalBatchNorm):
            nn.init.normal_(layer.gain, 1.0, 0.02)


def check_images(spec: Spec, scales: int) -> None:
    """Raise UserError unless examples are images whose sides halve so many times."""
    if len(spec.shape) != 3:
        raise UserError(f"expected images (C, H, W), got shape {spec.shape}", "use gan for other data")
    check_stride(2**scales, spec.shape[1:], "fewer --model.scales")


class DCGAN(ByChoice):
    """Strided convolutions each way, batch normalization everywhere but at the images and the critic's value.

    As in the authors' Torch code, with kernels of 4x4 where their paper's have 5x5; biases are where neither
    normalization nor the authors leave them out: at the critic's value. Each batch trains both sides, and no
    weight decays, where their code for faces trains one side at a time with an L2 penalty. With classes, the
    generator's batch normalization is conditional and the critic has a projection head; with another loss,
    norm and penalty it is the network of later papers (the recipes).

    See ``Adversarial`` for shapes.

    >>> model = DCGAN(DCGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options of the DCGAN."""

        width: Width = 128
        """Channels of the generator's last map, twice as many at each coarser one."""
        critic_width: Width = 64
        """Channels of the critic's first map, twice as many at each coarser one."""
        scales: Depth = 4
        """Times that the sides of a map double in the generator, and halve in the critic."""
        critic_norm: CriticNorm = "batch"
        """Normalization of the critic: of batches, spectral (of weights: Miyato et al., 2018), or none."""
        refined: bool = False
        """Add convolutions of 3x3 that leave a map's sides: in the critic before each that halves them and
        at the end, in the generator at the end (Miyato et al., 2018, table 3)."""

        @classmethod
        def tiny(cls) -> "DCGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, width=4, critic_width=4, scales=1)

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's kind of networks with convolutions of 3x3 between, for two CPU cores",
            model=Config(
                latents=64, width=32, critic_width=32, scales=2, refined=True, class_conditional=False
            ),
            stages={
                "training": Optimization(
                    steps=15_625, batch_size=64, ema=20_000,
                    phases=both(
                        learning_rate=5e-4, betas=(0.5, 0.999), schedule="linear", decay_from=0.5,
                        decay_to=2.5e-5,
                    ),
                )
            },
        ),
        "hinge": Recipe(
            source="hinge loss, spectral norm and projection (Miyato & Koyama, 2018), for two CPU cores",
            model=Config(
                latents=64, width=32, critic_width=32, scales=2, refined=True, loss="hinge",
                critic_norm="spectral",
            ),
            stages={"training": _MILLION},
        ),
        "relativistic": Recipe(
            source="relativistic pairs, R1 and R2 (Huang et al., 2025) each 4th step, for two CPU cores",
            model=Config(
                latents=64, width=32, critic_width=32, scales=2, refined=True, loss="relativistic",
                critic_norm="none", penalty="r1-r2", penalty_weight=0.1, penalty_every=4,
            ),
            stages={"training": _MILLION},
        ),
        "lsun": Recipe(
            source="the authors' code for LSUN and faces at 64x64: ngf 128, Adam 2e-4, beta1 .5, batch 128, "
            "z in [-1, 1]; steps are ours",
            model=Config(noise="uniform", width=128, critic_width=128, class_conditional=False),
            stages={
                "training": Optimization(
                    steps=100_000, batch_size=128,
                    phases=both(learning_rate=2e-4, betas=(0.5, 0.999), schedule="constant"),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_images(spec, config.scales)
        refined, places = config.refined, (spec, self.sample_classes)
        self.generator = Generator(config.latents, config.width, config.scales, *places, refined=refined)
        sizes = config.critic_width, config.scales, config.critic_norm
        self.critic = Critic(*sizes, *places, refined=refined)
        self.check_game()
