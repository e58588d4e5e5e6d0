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
from ancestral.bijections import Bijection, Dequantization
from ancestral.bijections.base import summed
from ancestral.capabilities import ContinuousLatents
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.models.flow.dequantizers import NOISES, UniformNoise, VariationalNoise
from ancestral.sampling import Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage
from ancestral.units import bits_per_dim


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
        self.dequantization: Dequantization | None = (
            None if spec.levels is None else config.dequantization.build(spec)
        )

    def stages(self) -> tuple[Stage, ...]:
        """One, before whose first step what normalizes starts from data (``ActNorm``)."""
        return (Stage("training", (Phase("training", (self,)),), initialize=self._start),)

    def _start(self, batch: Batch) -> None:
        self.log_likelihood(batch)

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes if self.config.class_conditional else 0

    def context(self, n: int, labels: Tensor | None) -> Tensor | None:
        """What the bijections are conditioned on: the class, one-hot, ``(n, classes)``; zeros for none."""
        if not self.sample_classes:
            return None
        if labels is None:
            return torch.zeros(n, self.sample_classes, device=self.device, dtype=self.dtype)
        return one_hot(labels.long(), self.sample_classes).to(self.dtype)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``."""
        return "exact" if self.spec.levels is None else "bound"

    @property
    def importance_weighted(self) -> bool:
        """See ``Model.importance_weighted``."""
        return self.spec.levels is not None

    def log_density(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Log p(y) of real numbers ``(N, *spec.shape)``, ``(N,)`` nats."""
        z, log_det = self.flow(y, context)
        return self._log_base(z) + log_det

    def _log_base(self, z: Tensor) -> Tensor:
        if self.config.base == "logistic":
            return summed(logsigmoid(z) + logsigmoid(-z))
        return summed(-0.5 * (z.square() + math.log(2 * math.pi)))

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x), or of integers log 1/k sum_i p(x + u_i) / q(u_i | x), ``(N,)`` nats."""
        self.check_importance_samples(k)
        if self.sample_classes and batch.labels is None:
            by_class = []
            for c in range(self.sample_classes):
                labels = torch.full((len(batch.x),), c, device=batch.x.device)
                by_class.append(self.log_likelihood(replace(batch, labels=labels), k))
            return torch.stack(by_class).logsumexp(0) - math.log(self.sample_classes)
        context = self.context(len(batch.x), batch.labels)
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
        return Loss(loss, {given + name: value for name, value in shown.items()})

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``: noise, times the temperature, through the inverse."""
        places: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "generator": generator}
        if self.config.base == "logistic":
            z = torch.rand(n, self.spec.dims, **places).clamp(1e-7, 1 - 1e-7).logit()
        else:
            z = torch.randn(n, self.spec.dims, **places)
        return self._from_noise(z * single(options.temperature), self.context(n, labels))

    def _from_noise(self, z: Tensor, context: Tensor | None) -> Tensor:
        y, _ = self.flow.inverse(z, context)
        if self.spec.levels is None:
            return y.to(self.spec.dtype)
        # An integer x has the values from x to x + 1. Noise far out may lead beyond all numbers.
        return y.nan_to_num().clamp(0, self.spec.levels - 1).floor().to(self.spec.dtype)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Z of each example ``(N, D)``, of integers with noise of .5, under the map of no class.

        Raises UserError for examples of another shape or range.
        """
        self.spec.check(x)
        y = x.to(self.dtype) + (0.5 if self.spec.levels is not None else 0.0)
        z: Tensor = self.flow(y, self.context(len(x), None))[0]
        return z

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The examples of noise ``(N, D)``, under the same map. Raises UserError for z of another shape."""
        if z.dim() != 2 or z.shape[1] != self.spec.dims:
            raise UserError(
                f"expected latents (N, {self.spec.dims}), got {tuple(z.shape)}", "give what embed gives"
            )
        return self._from_noise(z.to(self.device), self.context(len(z), None))
