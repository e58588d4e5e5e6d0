"""A small residual network that tells classes apart: the instrument with which samples are measured.

Residual blocks with the activation before the convolution (He et al., 2016, https://arxiv.org/abs/1603.05027).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from ancestral.batch import Batch
from ancestral.capabilities import Classifies
from ancestral.configuration import Depth, Range
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.nn.normalization import BatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage

_COARSEST = 4
"""Pixels to a side, about, that the image is brought down to before its features are averaged."""


class Classifier(Classifies):
    """Images to the probabilities of their classes, and to the features that tell these apart.

    It models p(class | image), no distribution of images: it has no likelihood, and nothing is drawn from it.
    Its recipes are the roles that it has where samples are measured: a network never judges what it chose.

    Shapes: x ``(N, C, H, W)`` integers, features ``(N, model.dim)``.

    >>> import torch
    >>> model = Classifier(Classifier.Config.tiny(), Spec(shape=(1, 8, 8), levels=17, classes=10)).eval()
    >>> x = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    >>> model.probabilities(x).shape, model.features(x).shape
    (torch.Size([3, 10]), torch.Size([3, 8]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of the classifier."""

        width: Annotated[int, Range(least=1, most=2**16)] = 32
        """Channels at half the resolution; twice as many at a quarter, four times from an eighth on."""
        blocks: Depth = 1
        """Residual blocks at each resolution."""

        @classmethod
        def tiny(cls) -> "Classifier.Config":
            """Small enough for a test."""
            return cls(width=8)

    recipes: ClassVar = {
        "features": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=Config(width=32),
            stages={"training": Optimization(steps=2000, batch_size=128, learning_rate=3e-3)},
        ),
        "gate": Recipe(
            source="as features, of another shape: it chooses among samples, and must not judge them",
            model=Config(width=24, blocks=2),
            stages={"training": Optimization(steps=1200, batch_size=128, learning_rate=3e-3)},
        ),
        "score": Recipe(
            source="as features, smaller: trained on samples alone, several times (Ravuri & Vinyals, 2019)",
            model=Config(width=16),
            stages={"training": Optimization(steps=1000, batch_size=64, learning_rate=3e-3)},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if spec.domain != "image":
            problem = f"expected images (C, H, W) for a classifier, got {spec.domain} {spec.shape}"
            raise UserError(problem, "give other features to the measures: a module of your own")
        if spec.classes < 2:
            problem = f"expected data with 2 classes or more for a classifier, got {spec.classes}"
            raise UserError(problem, "put the images of each class into a folder of its own")
        halvings = max(1, round(math.log2(max(min(spec.shape[1:]) / _COARSEST, 1))))
        widths = [config.width * min(2**i, 4) for i in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(spec.shape[0], widths[0], 3, stride=2, padding=1, bias=False)]
        for before, width in zip([widths[0], *widths], widths, strict=False):
            if len(layers) > 1:
                layers.append(_Block(before, width, stride=2))
            layers += [_Block(width, width) for _ in range(config.blocks)]
        self.trunk = nn.Sequential(*layers, BatchNorm(widths[-1]), nn.ReLU())
        self.head = nn.Linear(widths[-1], spec.classes)

    @property
    def dim(self) -> int:
        """The number of features."""
        return self.head.in_features

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of images ``(N, C, H, W)``: means over the positions, ``(N, dim)``."""
        return self.features_of_scaled(self.scale(x))

    def features_of_scaled(self, y: Tensor) -> Tensor:
        """The same of images as the spec scales them, in [-1, 1], with gradients."""
        h: Tensor = self.trunk(y)
        return h.mean((2, 3))

    def class_logits(self, x: Tensor) -> Tensor:
        """Unnormalized log p(class | x), ``(N, classes)``."""
        found: Tensor = self.head(self.features(x))
        return found

    def probabilities(self, x: Tensor) -> Tensor:
        """p(class | x), ``(N, classes)``."""
        return self.class_logits(x).float().softmax(1)

    def stages(self) -> tuple[Stage, ...]:
        """See ``Model.stages``."""
        return (Stage("training", (Phase("training", (self,)),), samples=False),)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Cross-entropy of the class, in nats."""
        if batch.labels is None:
            problem = "expected examples with labels for a classifier, got some without"
            raise UserError(problem, "use data whose every split has its classes")
        logits = self.class_logits(batch.x)
        labels = batch.labels.long()
        right = (logits.detach().argmax(1) == labels).float().mean()
        return Loss(cross_entropy(logits, labels), {"accuracy_percent": 100 * right})

    def draw(
        self,
        n: int,
        labels: Tensor | None,
        contexts: tuple[Tensor, ...],
        options: Sampling,
        *,
        generator: Generator | None,
        progress: Callable[[float], None],
    ) -> Tensor:
        """Raises UserError: there is nothing to draw."""
        problem = "expected a model that draws examples, got a classifier"
        raise UserError(problem, "give it to the measures of one that does")

    def check_trained(self) -> None:
        """See ``Model.check_trained``. Weights alone, of an unfinished training, are never saved."""

    def can_sample(self, trained: Sequence[str]) -> bool:
        """No."""
        return False


class _Block(nn.Module):
    """Twice batch normalization, ReLU and a 3x3 convolution, added to the input or its projection."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.enter = nn.Sequential(BatchNorm(inputs), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False),
            BatchNorm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        projects = stride > 1 or inputs != width
        self.shortcut = nn.Conv2d(inputs, width, 1, stride=stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        h = self.enter(x)
        out: Tensor = self.branch(h)
        return out + (x if self.shortcut is None else self.shortcut(h))
