"""The output of a network as a distribution over integers: which numbers it takes, and what they mean."""

from typing import Literal

import torch
from torch import Tensor, nn

from ancestral.distributions.discrete import Bernoulli, Categorical, Discrete
from ancestral.distributions.discretized import (
    DiscretizedLogisticMixture,
    DiscretizedNormal,
    coupled_logistic_mixture,
)
from ancestral.errors import UserError
from ancestral.spec import Spec

IndependentKind = Literal["bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"]
"""Of values that are independent given what the network was given."""
LikelihoodKind = Literal[IndependentKind, "coupled-logistic-mixture"]


class Likelihood:
    """A network's output ``(N, channels, *grid)`` as distributions over integers ``(N, C, *grid)``.

    >>> likelihood = Likelihood("logistic-mixture", Spec(shape=(3, 8, 8)), components=5)
    >>> likelihood.channels  # a weight, a location and a scale of each component, for each of three values
    45
    >>> likelihood(torch.zeros(2, 45, 8, 8)).batch_shape
    torch.Size([2, 3, 8, 8])

    Args:
        kind: ``bernoulli`` (2 levels), ``categorical`` (a softmax over the levels), ``logistic`` or
            ``logistic-mixture`` (discretized, ``components`` of them), ``coupled-logistic-mixture`` (the
            channels share components, and each depends on the values of those before it), ``gaussian``
            (discretized normal).
        spec: what the integers are; their first dimension is C.
        components: of a mixture.

    Raises:
        UserError: the kind does not fit the spec.
    """

    def __init__(self, kind: LikelihoodKind, spec: Spec, components: int = 10) -> None:
        self.levels = spec.discrete_levels
        if kind == "bernoulli" and self.levels != 2:
            raise UserError(
                f"expected 2 levels for a Bernoulli likelihood, got {self.levels}",
                "add --images.levels 2 or choose another likelihood",
            )
        if not spec.ordered and kind not in ("categorical", "bernoulli"):
            raise UserError(
                f"expected a categorical likelihood for code indices, got {kind}",
                "codes have no order: choose categorical",
            )
        if components < 1:
            raise UserError(f"expected at least 1 component, got {components}", "try 10")
        self.kind = kind
        self.components = components if kind.endswith("logistic-mixture") else 1
        self.values = spec.shape[0]
        self.coupled = kind == "coupled-logistic-mixture"
        """Whether a channel's distribution depends on the values of the channels before it."""

    @property
    def channels(self) -> int:
        """Channels that the network must put out."""
        if (
            self.coupled
        ):  # one weight for all values, a location and a scale for each, a coefficient for each pair
            return self.components * (1 + 2 * self.values + self.values * (self.values - 1) // 2)
        per_value = {
            "bernoulli": 1,
            "categorical": self.levels,
            "logistic": 2,
            "logistic-mixture": 3 * self.components,
            "gaussian": 2,
        }
        return self.values * per_value[self.kind]

    def __call__(self, output: Tensor, x: Tensor | None = None) -> Discrete:
        """The distributions that ``output`` describes.

        Channels are grouped by value: all of the first value's come first. Coupled ones are the conditionals
        given the values ``x`` ``(N, C, *grid)`` of the channels before.

        Raises:
            UserError: the likelihood is coupled, and there is no ``x``.
        """
        if self.coupled:
            if x is None:
                problem = "expected a likelihood of values that are independent given all else"
                raise UserError(f"{problem}, got {self.kind}", "choose logistic-mixture")
            return self._coupled(output, x)
        parameters = output.unflatten(1, (self.values, -1)).movedim(2, -1)  # (N, C, *grid, P)
        # Differences of cumulative distributions need at least float32.
        parameters = parameters.float() if parameters.dtype in (torch.bfloat16, torch.float16) else parameters
        if self.kind == "bernoulli":
            return Bernoulli(parameters.squeeze(-1))
        if self.kind == "categorical":
            return Categorical(parameters)
        if self.kind == "gaussian":
            return DiscretizedNormal(parameters[..., 0], parameters[..., 1], self.levels)
        if self.kind == "logistic":
            loc, log_scale = parameters[..., :1], parameters[..., 1:]
            return DiscretizedLogisticMixture(torch.zeros_like(loc), loc, log_scale, self.levels)
        logits, loc, log_scale = parameters.chunk(3, -1)
        return DiscretizedLogisticMixture(logits, loc, log_scale, self.levels)

    def _coupled(self, output: Tensor, x: Tensor) -> Discrete:
        c = self.values
        parameters = output.unflatten(1, (-1, self.components)).movedim(
            2, -1
        )  # (N, 1 + 2C + C(C-1)/2, *grid, K)
        parameters = parameters.float() if parameters.dtype in (torch.bfloat16, torch.float16) else parameters
        logits, loc, log_scale, coefficients = parameters.split([1, c, c, c * (c - 1) // 2], 1)
        return coupled_logistic_mixture(logits, loc, log_scale, coefficients, x, levels=self.levels)

    def initialize(self, layer: nn.Module) -> None:
        """Set the output layer's bias so that training starts from broad components all over the levels."""
        bias = layer.bias
        if not isinstance(bias, Tensor) or self.kind in ("bernoulli", "categorical"):
            return
        with torch.no_grad():
            if self.coupled:
                table = bias.view(
                    -1, self.components
                )  # rows: logits, C times loc, C times log_scale, coefficients
                table[1 : 1 + self.values] = torch.linspace(-1, 1, self.components + 2)[1:-1]
                table[1 + self.values : 1 + 2 * self.values] = -1.0
                return
            table = bias.view(self.values, -1, self.components)  # rows: (logits,) loc, log_scale
            table[:, -2] = torch.linspace(-1, 1, self.components + 2)[1:-1]
            table[:, -1] = -1.0
