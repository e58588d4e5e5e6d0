r"""What the adversarial models share: a generator x = g(z), and a critic that it learns against.

An example is a sample of g alone: there is no likelihood, and quality is measured by what samples are like.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.modules.batchnorm import _BatchNorm

from ancestral.batch import Batch
from ancestral.capabilities import Renders
from ancestral.configuration import Count, NonNegative, Width
from ancestral.errors import UserError, check_type
from ancestral.model import Model
from ancestral.nn.adversarial import GAMES, GameName, accuracy, drift
from ancestral.nn.augmentation import DifferentiableAugmentation
from ancestral.nn.gradient_penalty import lipschitz_penalty, zero_centered_penalty
from ancestral.nn.minibatch import MinibatchDiscrimination
from ancestral.nn.normalization import ConditionalBatchNorm, world_size
from ancestral.recipe import Updates
from ancestral.sampling import PLAIN, Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage

PenaltyName = Literal["none", "lipschitz", "r1", "r1-r2"]
Noise = Literal["normal", "uniform", "uniform-positive", "uniform-of-variance-1"]

_SATURATED, _COLLAPSED, _BEGINNING = 0.98, 0.5, 0.2
"""An accuracy of the critic, and a diversity of samples beside real ones, beyond which something is wrong;
and the share of the steps in which it need not be."""
_REACH = {"uniform": 1.0, "uniform-positive": 0.5, "uniform-of-variance-1": 3.0**0.5}
"""How far each kind of uniform noise reaches from its middle."""


class Adversarial(Renders):
    """Base of the adversarial models. A model sets ``generator`` and ``critic``.

    The generator takes z ``(N, latents)`` and classes ``(N,)``, their shares ``(N, classes)`` or None to
    examples as the spec scales them, in [-1, 1]; the critic takes such examples and classes to ``(N,)``,
    large for real ones.

    Shapes: x ``(N, *spec.shape)``.
    """

    generator: nn.Module
    critic: nn.Module
    mixes_classes: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options that all adversarial models have."""

        latents: Width = 100
        """Dimensions of z."""
        noise: Noise = "normal"
        """Distribution of each of them: normal, or uniform in [-1, 1], in [0, 1], or with variance 1."""
        loss: GameName = "non-saturating"
        """The game: what critic and generator minimize."""
        penalty: PenaltyName = "none"
        """On the critic's gradient at its input: lipschitz (its norm is to be 1 between real and generated
        examples: WGAN-GP), r1 (it is to be 0 at real ones), or r1-r2 (at generated ones too)."""
        penalty_weight: NonNegative = 10.0
        """Weight of the penalty."""
        penalty_every: Count = 1
        """Steps from one penalty to the next, which then weighs as many times more; the critic's learning
        rate and betas stay."""
        drift: NonNegative = 0.0
        """Weight of the critic's squared values of real examples, which keeps values near 0 where only
        differences count."""
        critic_updates: Count = 1
        """Updates of the critic, each with a batch of its own, before one of the generator."""
        augmentation: Literal["none", "fixed", "adaptive"] = "none"
        """Of what the critic sees, where images are few: none; fixed (DiffAugment), each change always; or
        adaptive (ADA), each with a probability that keeps the critic from learning the images by heart."""
        dequantize: bool = False
        """Add uniform noise of a level's width to real examples, where generated ones have no levels."""

    augmentation: DifferentiableAugmentation | None

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__(config, spec)
        self.augmentation, how = None, config.augmentation
        if how == "none":
            return
        if len(spec.shape) != 3:
            problem = f"expected images (C, H, W) to augment, got shape {spec.shape}"
            raise UserError(problem, "leave --model.augmentation out")
        if how == "adaptive" and not GAMES[config.loss].signed:
            problem = f"expected a critic of logits to adapt to, got the loss {config.loss}"
            raise UserError(problem, "choose --model.augmentation fixed")
        self.augmentation = DifferentiableAugmentation(0.0 if how == "adaptive" else 1.0)

    def check_game(self) -> None:
        """Raise UserError for a penalty on a critic that looks at examples together."""
        together = (_BatchNorm, ConditionalBatchNorm, MinibatchDiscrimination)
        mixes = [type(m).__name__ for m in self.critic.modules() if isinstance(m, together)]
        if self.config.penalty != "none" and mixes:
            problem = (
                f"expected a critic that takes examples one by one for a penalty, got one with {mixes[0]}"
            )
            raise UserError(problem, "choose another norm of the critic, or no penalty")

    def stages(self) -> tuple[Stage, ...]:
        """One stage: the critic's phase, now and then its penalty's, the generator's."""
        config = self.config
        critic = (self.critic,) if self.augmentation is None else (self.critic, self.augmentation)
        phases = [Phase("critic", critic, repeat=config.critic_updates)]
        if config.penalty != "none" and config.penalty_every > 1:
            phases.append(
                Phase("penalty", critic, optimizer="critic", validated=False, every=config.penalty_every)
            )
        phases.append(Phase("generator", (self.generator,)))
        return (
            Stage(
                "training",
                tuple(phases),
                initialize=self.start,
                initial=self.initial_examples,
                averaged=(self.generator,),
                watch=self.watch,
                compiles=config.penalty == "none",  # whose gradient is differentiated again
                measured=True,
            ),
        )

    def watch(self, values: Mapping[str, float], share: float) -> list[str]:
        """Signs of a game that goes wrong, each with what helps; not at the beginning, where all look so."""
        signs: list[str] = []
        if share < _BEGINNING:
            return signs
        smoother = ", or --model.penalty r1" if self.config.penalty == "none" else ""
        if values.get("critic_accuracy", 0.0) > _SATURATED:
            signs.append(
                "the critic takes nearly all examples for what they are, and may teach the generator nothing "
                "any more: try a lower learning rate of the critic, --model.augmentation adaptive if images "
                f"are few{smoother}"
            )
        if values.get("diversity", 1.0) < _COLLAPSED:
            signs.append(
                "samples vary less than half as much as real examples, so some kinds of them are missing: "
                f"try a lower learning rate of the generator{smoother}"
            )
        return signs

    @property
    def initial_examples(self) -> int | None:
        """How many ``start`` is given; None for a batch."""
        return None

    def judge(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The critic's values of examples, which training augments, ``(N,)``."""
        values: Tensor = self.critic(self.seen(x), None if labels is None else labels.long())
        return values.to(x.dtype)

    def seen(self, x: Tensor) -> Tensor:
        """What the critic sees of examples: augmented ones in training, if so configured."""
        if self.augmentation is None or not self.training:
            return x
        changed: Tensor = self.augmentation(x)
        return changed

    def start(self, batch: Batch) -> None:
        """Set weights from the first examples."""

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """What a phase minimizes, with the critic's mean values of real and generated examples."""
        real, labels, game = self.real(batch.x), self._labels(batch), GAMES[self.config.loss]
        if phase == "generator":
            fake = self.generate(self._latents(len(real)), labels)
            f = self.judge(fake, labels)
            r = self.judge(real, labels) if game.relativistic else f
            return Loss(game.generator(f, r))
        fake = real
        if phase != "penalty" or self.config.penalty != "r1":  # which is of real examples alone
            with torch.no_grad():
                fake = self.generate(self._latents(len(real)), labels)
        if phase == "penalty":
            penalty = self._penalty(real, fake, labels)
            # As much as in all updates of the critic since the last one.
            weight = self.config.penalty_weight * self.config.penalty_every * self.config.critic_updates
            return Loss(weight * penalty, {"mean": penalty.detach()})
        r, f = self.judge(real, labels), self.judge(fake, labels)
        total = self.critic_loss(r, f)
        if self.config.drift:
            total = total + self.config.drift * drift(r)
        terms = {"real": r.mean().detach(), "generated": f.mean().detach()}
        if game.signed:
            terms["accuracy"] = accuracy(r, f)
        if self.augmentation is not None and self.config.augmentation == "adaptive":
            if self.training:
                self.augmentation.adapt(r.detach(), len(r) * world_size())
            terms["augmentation"] = self.augmentation.p.clone()
        if self.config.penalty != "none" and self.config.penalty_every == 1 and self.training:
            penalty = self._penalty(real, fake, labels)
            total, terms["penalty"] = total + self.config.penalty_weight * penalty, penalty.detach()
        return Loss(total, terms)

    def critic_loss(self, r: Tensor, f: Tensor) -> Tensor:
        """What the critic minimizes, of its values of real and of generated examples ``(N,)``."""
        return GAMES[self.config.loss].critic(r, f)

    def _penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        def critic(x: Tensor) -> Tensor:
            return self.judge(x, labels)

        if self.config.penalty == "lipschitz":
            return lipschitz_penalty(critic, real, fake)
        penalty = zero_centered_penalty(critic, real)
        if self.config.penalty == "r1-r2":
            penalty = penalty + zero_centered_penalty(critic, fake)
        return penalty

    def real(self, x: Tensor) -> Tensor:
        """Examples as the critic sees them."""
        if not self.config.dequantize or self.spec.levels is None:
            return self.spec.scale(x, self.dtype)
        x = x.to(self.dtype)
        return (x + torch.rand_like(x)) * (2 / self.spec.levels) - 1

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.labels if self.sample_classes else None

    def _latents(self, n: int, generator: Generator | None = None) -> Tensor:
        """Around 0."""
        return noise(
            self.config.noise,
            n,
            self.config.latents,
            device=self.device,
            dtype=self.dtype,
            generator=generator,
        )

    def generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The generator's examples of latents around 0, as the spec scales them."""
        given = placed(self.config.noise, z)
        if labels is not None and not labels.is_floating_point():
            labels = labels.long()
        return self.make(given, labels).to(z.dtype)

    def make(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The generator at work, on latents where their distribution has them."""
        x: Tensor = self.generator(z, labels)
        return x

    def draw_latents(self, n: int, options: Sampling = PLAIN, generator: Generator | None = None) -> Tensor:
        """See ``Decodes.draw_latents``; the temperature scales them."""
        return self._latents(n, generator) * single(options.temperature)

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``: latents, through the generator."""
        return self.to_examples(self.generate(self.draw_latents(n, options, generator), labels))

    def vectors(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See ``Renders.vectors``: the latents."""
        return self._given_latents(z, labels)[0]

    def render(self, v: Tensor, labels: Tensor | None = None) -> Tensor:
        """See ``Renders.render``."""
        return self.as_large(self.generate(*self._given_latents(v, labels)))

    def as_large(self, y: Tensor) -> Tensor:
        """Images of the generator, as large as examples."""
        return y

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The generator's examples of latents. Raises UserError for other shapes, or lacking labels."""
        return self.to_examples(self.generate(*self._given_latents(z, labels)))

    def _given_latents(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Latents and classes, where the model is. Raises UserError for other shapes, or lacking labels."""
        check_type(z, Tensor, "a tensor of latents", "give what draw_latents gives")
        check_type(labels, Tensor | None, "a tensor of classes", "wrap them: torch.tensor(labels)")
        if z.dim() != 2 or z.shape[1] != self.config.latents:
            problem = f"expected latents (N, {self.config.latents}), got {tuple(z.shape)}"
            raise UserError(problem, "give what draw_latents gives")
        shares = (len(z), self.sample_classes)
        if labels is not None and labels.is_floating_point() and self.sample_classes:
            if labels.shape != shares:
                raise UserError(
                    f"expected shares of classes {shares}, got {tuple(labels.shape)}", "give a row for each z"
                )
            labels = labels.to(self.device, self.dtype)
        elif labels is not None:
            self.check_labels(labels, len(z))
            labels = labels.to(self.device)
        elif self.sample_classes:
            raise UserError("expected the classes of the latents, got none", "give labels")
        return z.to(self.device, self.dtype), labels

    def to_examples(self, y: Tensor) -> Tensor:
        """See ``Renders.to_examples``."""
        y, levels = self.as_large(y), self.spec.levels
        if levels is None:
            return y.float()
        if not self.config.dequantize:
            return self.spec.unscale(y)
        return ((y + 1) * (levels / 2)).floor().clamp(0, levels - 1).to(self.spec.dtype)


class ByChoice(Adversarial):
    """Base of the adversarial models that are conditional where the data have classes, if so configured."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Adversarial.Config):
        """Options of these models."""

        class_conditional: bool = True
        """Whether both networks are given the class, where the data have classes."""

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0


def noise(
    kind: Noise,
    n: int,
    latents: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    generator: Generator | None = None,
) -> Tensor:
    """Draws of a distribution of latents, moved to lie around 0, ``(n, latents)``."""
    places: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
    if kind == "normal":
        return torch.randn(n, latents, **places)
    return _REACH[kind] * (2 * torch.rand(n, latents, **places) - 1)


def placed(kind: Noise, z: Tensor) -> Tensor:
    """Latents around 0, moved to where the distribution has them."""
    return z + 0.5 if kind == "uniform-positive" else z


def both(**updates: Any) -> dict[str, Updates]:
    """The same updates of critic and generator, by default without warm-up and clipped gradients.

    >>> both(betas=(0.0, 0.9))["critic"].betas
    (0.0, 0.9)
    """
    settings: dict[str, Any] = {"warmup": 0, "gradient_clip": None, **updates}
    return {name: Updates(**settings) for name in ("critic", "generator")}


def apart(critic: float, generator: float, **updates: Any) -> dict[str, Updates]:
    """As ``both``, with a learning rate for each side.

    >>> apart(4e-4, 1e-4)["generator"].learning_rate
    0.0001
    """
    rates = {"critic": critic, "generator": generator}
    return {name: both(learning_rate=rate, **updates)[name] for name, rate in rates.items()}


def given_classes(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """Classes ``(N,)`` one-hot ``(N, classes)``, in another tensor's dtype; or their shares as they are."""
    assert labels is not None
    if labels.is_floating_point():
        return labels.to(like.dtype)
    return one_hot(labels.long(), classes).to(like.dtype)


def with_classes(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Features ``(N, D)`` or maps ``(N, C, H, W)`` and, after them, the class one-hot, the same everywhere.

    >>> with_classes(torch.zeros(1, 2), torch.tensor([1]), 3)
    tensor([[0., 0., 0., 1., 0.]])
    """
    given = (
        given_classes(labels, classes, x)
        .view(len(x), classes, *[1] * (x.dim() - 2))
        .expand(-1, -1, *x.shape[2:])
    )
    return torch.cat([x, given], 1)


def output_of(spec: Spec) -> nn.Module:
    """What ends a generator: examples in [-1, 1], or real numbers as they are."""
    return nn.Identity() if spec.levels is None else nn.Tanh()
