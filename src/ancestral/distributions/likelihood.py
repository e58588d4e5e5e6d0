"""The output of a network as a distribution over integers: which numbers it takes, and what they mean."""

from typing import Literal

import torch
from torch import Tensor, nn

from ancestral.distributions.discrete import Bernoulli, Categorical, Discrete
from ancestral.distributions.discretized import DiscretizedLogisticMixture, DiscretizedNormal
from ancestral.errors import UserError
from ancestral.spec import Spec

LikelihoodKind = Literal["bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"]


class Likelihood:
    """Turns a network's output ``(N, channels, *grid)`` into independent distributions over integers ``(N, C, *grid)``.

    Args:
        kind: ``bernoulli`` (2 levels), ``categorical`` (a softmax over the levels), ``logistic`` or ``logistic-mixture``
            (discretised, ``components`` of them), ``gaussian`` (discretised normal).
        spec: what the integers are; their first dimension is C.
        components: of a ``logistic-mixture``.

    Raises:
        UserError: the kind does not fit the spec.
    """

    def __init__(self, kind: LikelihoodKind, spec: Spec, components: int = 10) -> None:
        self.levels = spec.discrete_levels
        if kind == "bernoulli" and self.levels != 2:
            raise UserError(
                f"expected 2 levels for a Bernoulli likelihood, got {self.levels}", "add --images.levels 2 or choose another likelihood"
            )
        if not spec.ordered and kind not in ("categorical", "bernoulli"):
            raise UserError(f"expected a categorical likelihood for code indices, got {kind}", "codes have no order: choose categorical")
        if components < 1:
            raise UserError(f"expected at least 1 component, got {components}", "try 10")
        self.kind = kind
        self.components = components if kind == "logistic-mixture" else 1
        self.values = spec.shape[0]

    @property
    def channels(self) -> int:
        """Channels that the network must put out."""
        per_value = {
            "bernoulli": 1, "categorical": self.levels, "logistic": 2, "logistic-mixture": 3 * self.components, "gaussian": 2
        }  # fmt: skip
        return self.values * per_value[self.kind]

    def __call__(self, output: Tensor) -> Discrete:
        """The distributions that ``output`` describes. Channels are grouped by value: all of the first value's come first."""
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

    def initialize(self, layer: nn.Module) -> None:
        """Set the bias of the output layer so that training starts from broad components spread over the levels."""
        bias = layer.bias
        if not isinstance(bias, Tensor) or self.kind in ("bernoulli", "categorical"):
            return
        with torch.no_grad():
            table = bias.view(self.values, -1, self.components)  # rows: (logits,) loc, log_scale
            table[:, -2] = torch.linspace(-1, 1, self.components + 2)[1:-1]
            table[:, -1] = -1.0
