r"""What all flows share: :math:`p(x) = p_z(f(x)) \, |\det \partial f / \partial x|`, f a bijection.

A table's rows are real numbers, and their density is exact. Integers get noise first (see
``ancestral.bijections.dequantization``), so that the figure is a lower bound of their probability.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, one_hot

from ancestral.batch import Batch
from ancestral.bijections import ActNorm, Bijection, Dequantization, Invertible1x1, Reversible
from ancestral.bijections.base import log_normal, summed
from ancestral.capabilities import ContinuousLatents
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.models.flow.dequantizers import NOISES, UniformNoise, VariationalNoise
from ancestral.sampling import PLAIN, Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage
from ancestral.units import bits_per_dim

_MOST_LEVELS = 2**16
"""A 32-bit float of this size leaves 256 values to the noise of a level."""


_REDRAWS = 20
"""Times that rows beyond all floats are drawn again."""


class Flow(ContinuousLatents):
    """Base of the flows. A model sets ``flow``, from values to noise ``(N, D)``.

    Shapes: x ``(N, *spec.shape)``, z ``(N, D)``, D the number of values of an example. Likelihoods are in
    nats for each example: exact of real numbers, lower bounds of integers. A class-conditional flow without
    labels is the even mixture of its classes.
    """

    choices: ClassVar = {"dequantization": NOISES}
    flow: Bijection

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of every flow."""

        base: Literal["normal", "logistic"] = "normal"
        """Distribution of each value of the noise z."""
        dequantization: UniformNoise | VariationalNoise = field(default_factory=UniformNoise)
        """Noise that is added to integers."""
        class_conditional: bool = True
        """Condition on the class where the data have classes."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if spec.domain == "codes":
            raise UserError(
                "expected values whose order means something, got codes", "use an autoregressive model"
            )
        if (spec.levels or 0) > _MOST_LEVELS:
            problem = f"expected at most {_MOST_LEVELS:,} levels, beside which noise is not rounded, got"
            raise UserError(f"{problem} {spec.levels:,}", "use fewer levels, or a table of real numbers")
        self.dequantization: Dequantization | None = (
            None if spec.levels is None else config.dequantization.build(spec)
        )

    def stages(self) -> tuple[Stage, ...]:
        """One, before whose first step what normalizes starts from data (``ActNorm``)."""
        starts = any(isinstance(module, ActNorm) for module in self.modules())
        phases = (Phase("training", (self,)),)
        return (Stage("training", phases, initialize=self._start if starts else None),)

    def _start(self, batch: Batch) -> None:
        self.log_likelihood(batch)

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0

    def context(self, labels: Tensor | None) -> Tensor | None:
        """What the bijections are conditioned on: the class, one-hot, ``(N, classes)``.

        Raises:
            UserError: the flow is class-conditional, and there are no labels.
        """
        if not self.sample_classes:
            return None
        if labels is None:
            problem = f"expected labels for a class-conditional {type(self).__name__}, got none"
            raise UserError(problem, "give the class of each example; log_likelihood alone does without")
        return one_hot(labels.long().to(self.device), self.sample_classes).to(self.dtype)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``."""
        return "exact" if self.spec.levels is None else "bound"

    @property
    def importance_weighted(self) -> bool:
        """See ``Model.importance_weighted``."""
        return self.spec.levels is not None

    def log_density(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Log p(y) of real numbers ``(N, *spec.shape)``, ``(N,)`` nats.

        In evaluation it is -infinity of what lies so far out that the flow leads beyond all floats.
        """
        z, log_det = self.flow(y, context)
        log_base = logsigmoid(z) + logsigmoid(-z) if self.config.base == "logistic" else log_normal(z)
        log_density: Tensor = summed(log_base) + log_det
        if self.training:
            return log_density
        return torch.where(log_density.isnan() & y.flatten(1).isfinite().all(1), -math.inf, log_density)

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x), or of integers log 1/k sum_i p(x + u_i) / q(u_i | x), ``(N,)`` nats."""
        self.check_importance_samples(k)
        if self.sample_classes and batch.labels is None:
            by_class = []
            for c in range(self.sample_classes):
                labels = torch.full((len(batch.x),), c, device=batch.x.device)
                by_class.append(self.log_likelihood(replace(batch, labels=labels), k))
            return torch.stack(by_class).logsumexp(0) - math.log(self.sample_classes)
        context = self.context(batch.labels)
        x = batch.x.to(self.dtype)
        if self.dequantization is None:
            return self.log_density(x, context)
        log_weights = []
        for _ in range(k):
            noise, log_q = self.dequantization(x, context)
            log_weights.append(self.log_density(x + noise, context) - log_q)
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Negative log-likelihood, in bits/dim; of tables the term is in nats for each row.

        The term says whether it is given the label.
        """
        nats = -self.log_likelihood(batch).mean()
        loss = bits_per_dim(nats, self.spec.dims)
        given = "given_label_" if self.sample_classes and batch.labels is not None else ""
        shown = {"nll": nats.detach()} if self.spec.levels is None else {"bits_per_dim": loss.detach()}
        terms = {given + name: value for name, value in shown.items()}
        reversible = [m.inverse_error for m in self.modules() if isinstance(m, Reversible)]
        if reversible and self.training:  # of the step before
            terms["inverse_error"] = torch.stack(reversible).amax().clone()
        return Loss(loss, terms)

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``: noise, times the temperature, through the inverse.

        A row that the inverse leads beyond all floats is drawn again.
        """
        context = self.context(labels)
        y, _ = self.flow.inverse(self.draw_latents(n, options, generator), context)
        for _ in range(_REDRAWS):
            beyond = (~y.flatten(1).isfinite().all(1)).nonzero().flatten()
            if not len(beyond):
                break
            given = None if context is None else context[beyond]
            y[beyond] = self.flow.inverse(self.draw_latents(len(beyond), options, generator), given)[0]
        return self._to_examples(y)

    def draw_latents(self, n: int, options: Sampling = PLAIN, generator: Generator | None = None) -> Tensor:
        """See ``Decodes.draw_latents``."""
        places: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "generator": generator}
        if self.config.base == "logistic":
            z = torch.rand(n, self.spec.dims, **places).clamp(1e-7, 1 - 1e-7).logit()
        else:
            z = torch.randn(n, self.spec.dims, **places)
        return z * single(options.temperature)

    def _to_examples(self, y: Tensor) -> Tensor:
        """Real numbers as the spec has them. Raises UserError for NaN and infinity."""
        if not bool(y.isfinite().all()):
            for name, module in self.named_modules():
                if isinstance(module, Invertible1x1) and module.is_singular:
                    problem = f"expected invertible matrices, got a singular one in {name}"
                    raise UserError(problem, "train with a smaller learning rate, or with --model.lu")
            got = f"{int((~y.isfinite()).sum())} numbers beyond all floats"
            raise UserError(f"expected finite samples, got {got}", "lower the temperature")
        if self.spec.levels is None:
            return y.to(self.spec.dtype)
        # An integer x has the values from x to x + 1.
        return y.clamp(0, self.spec.levels - 1).floor().to(self.spec.dtype)

    @torch.no_grad()
    def embed(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise of each example, ``(N, D)``, of integers with .5 added, given their classes if need be.

        Raises UserError for examples of another shape or range, or without the labels that it needs.
        """
        self.spec.check(x, labels)
        y = x.to(self.device, self.dtype) + (0.5 if self.spec.levels is not None else 0.0)
        z: Tensor = self.flow(y, self.context(labels))[0]
        return z

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The examples of noise ``(N, D)``. Raises UserError for z of another shape, or lacking labels."""
        if z.dim() != 2 or z.shape[1] != self.spec.dims:
            raise UserError(
                f"expected latents (N, {self.spec.dims}), got {tuple(z.shape)}", "give what embed gives"
            )
        return self._to_examples(self.flow.inverse(z.to(self.device), self.context(labels))[0])
