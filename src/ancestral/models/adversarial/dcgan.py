"""DCGAN (Radford et al., Unsupervised Representation Learning with DCGANs, 2015), https://arxiv.org/abs/1511.06434."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from ancestral.configuration import Depth, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import Adversarial, both, output_of
from ancestral.nn.convolutional import check_stride
from ancestral.nn.normalization import BatchNorm, ConditionalBatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

CriticNorm = Literal["batch", "spectral", "none"]


class Generator(nn.Module):
    """z to a small map, then transposed convolutions that double its sides, down to the image.

    Batch normalization and rectifiers stand between them; with classes its gains and biases are the class's.
    """

    def __init__(self, latents: int, width: int, scales: int, spec: Spec, classes: int = 0) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [width * 2**i for i in reversed(range(scales))]
        self.first = nn.Linear(latents, widths[0] * grid[0] * grid[1], bias=False)
        self.map = nn.Unflatten(1, (widths[0], *grid))
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, classes) for w in widths)
        self.doubling = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            for before, after in pairwise(widths)
        )
        self.doubling.append(
            nn.ConvTranspose2d(widths[-1], spec.shape[0], 4, stride=2, padding=1, bias=False)
        )
        self.output = output_of(spec)
        _initialize(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to ``(N, C, H, W)``."""
        h = self.map(self.first(z))
        for norm, doubling in zip(self.norms, self.doubling, strict=True):
            h = doubling(norm(h, labels).relu())
        x: Tensor = self.output(h.to(z.dtype))
        return x


class Critic(nn.Module):
    """Convolutions that halve the sides, with leaky rectifiers, to one number.

    With classes the class's vector is multiplied with the last features, and added (Miyato & Koyama, 2018,
    https://arxiv.org/abs/1802.05637).
    """

    def __init__(self, width: int, scales: int, norm: CriticNorm, spec: Spec, classes: int = 0) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [spec.shape[0], *(width * 2**i for i in range(scales))]
        self.halving, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(scales):
            normalized = norm == "batch" and i > 0
            # Spectral norm is later networks', which have biases.
            bias = norm != "batch"
            self.halving.append(nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1, bias=bias))
            self.norms.append(BatchNorm(widths[i + 1]) if normalized else nn.Identity())
        features = widths[-1] * grid[0] * grid[1]
        self.output = nn.Linear(features, 1)
        self.classes = nn.Embedding(classes, features) if classes else None
        _initialize(self)
        if norm == "spectral":
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(module, eps=1e-12)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = x
        for halving, norm in zip(self.halving, self.norms, strict=True):
            h = leaky_relu(norm(halving(h)), 0.2)
        h = h.flatten(1)
        value = self.output(h).squeeze(1)
        if self.classes is not None:
            value = value + (self.classes(labels) * h).sum(1)
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
    check_stride(2**scales, spec.shape[1:])


class DCGAN(Adversarial):
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
    class Config(Adversarial.Config):
        """Options of the DCGAN."""

        width: Width = 128
        """Channels of the generator's last map, twice as many at each coarser one."""
        critic_width: Width = 64
        """Channels of the critic's first map, twice as many at each coarser one."""
        scales: Depth = 4
        """Times that the sides of a map double in the generator, and halve in the critic."""
        critic_norm: CriticNorm = "batch"
        """Normalization of the critic: of batches, spectral (of weights: Miyato et al., 2018), or none."""
        class_conditional: bool = True
        """Whether both networks are given the class, where the data have classes."""

        @classmethod
        def tiny(cls) -> "DCGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, width=4, critic_width=4, scales=1)

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's kind of networks, for two CPU cores",
            model=Config(width=32, critic_width=32, scales=2, class_conditional=False),
            stages={
                "training": Optimization(
                    steps=10_000, batch_size=64, ema=0.999,
                    phases=both(learning_rate=2e-4, betas=(0.5, 0.999), schedule="constant"),
                )
            },
        ),
        "hinge": Recipe(
            source="hinge loss, spectral norm and projection (Miyato & Koyama, 2018), for two CPU cores",
            model=Config(
                latents=64, width=32, critic_width=32, scales=2, loss="hinge", critic_norm="spectral"
            ),
            stages={
                "training": Optimization(
                    steps=15_000, batch_size=64, ema=0.999,
                    phases=both(learning_rate=5e-4, betas=(0.0, 0.99)),
                )
            },
        ),
        "relativistic": Recipe(
            source="relativistic pairs, R1 and R2 (Huang et al., 2025) each 4th step, for two CPU cores",
            model=Config(
                latents=64, width=32, critic_width=32, scales=2, loss="relativistic", critic_norm="none",
                penalty="r1-r2", penalty_weight=0.1, penalty_every=4,
            ),
            stages={
                "training": Optimization(
                    steps=15_000, batch_size=64, ema=0.999,
                    phases=both(learning_rate=5e-4, betas=(0.0, 0.99)),
                )
            },
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
        self.generator = Generator(config.latents, config.width, config.scales, spec, self.sample_classes)
        sizes = config.critic_width, config.scales, config.critic_norm
        self.critic = Critic(*sizes, spec, self.sample_classes)
        self.check_game()

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0
