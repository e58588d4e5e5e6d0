r"""The games that a generator and its critic play: what each of them minimizes.

A critic gives a number for an example, large for a real one: the logit of its being real, or a value. Here r
is that of real and f that of generated examples, ``(N,)`` each; a loss is a mean over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from ancestral.errors import UserError

GameName = Literal["minimax", "non-saturating", "least-squares", "wasserstein", "hinge", "relativistic"]


@dataclass(frozen=True)
class Game:
    """The losses of both sides.

    >>> r, f = torch.tensor([2.0]), torch.tensor([-3.0])
    >>> GAMES["hinge"].critic(r, f).item(), GAMES["hinge"].generator(f, r).item()
    (0.0, 3.0)
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    """Of r and f, what the critic minimizes."""
    generator: Callable[[Tensor, Tensor], Tensor]
    """Of f and r, what the generator minimizes."""
    relativistic: bool = False
    """Whether the generator's loss depends on r; the two are then paired, of the same class."""
    signed: bool = True
    """Whether the sign of the critic's number says what it takes an example for."""


def _cross_entropy(r: Tensor, f: Tensor) -> Tensor:
    return softplus(-r).mean() + softplus(f).mean()


GAMES: dict[str, Game] = {
    # Goodfellow et al., 2014 (https://arxiv.org/abs/1406.2661), equation 1.
    "minimax": Game(_cross_entropy, lambda f, r: -softplus(f).mean()),
    # The same, section 3: log D(G(z)) has gradients where the critic wins.
    "non-saturating": Game(_cross_entropy, lambda f, r: softplus(-f).mean()),
    # Mao et al., 2016 (https://arxiv.org/abs/1611.04076), equation 9, targets 1 and 0.
    "least-squares": Game(
        lambda r, f: 0.5 * ((r - 1).square().mean() + f.square().mean()),
        lambda f, r: 0.5 * (f - 1).square().mean(),
        signed=False,
    ),
    # Arjovsky et al., 2017 (https://arxiv.org/abs/1701.07875), equation 2.
    "wasserstein": Game(lambda r, f: f.mean() - r.mean(), lambda f, r: -f.mean(), signed=False),
    # Lim & Ye, 2017 (https://arxiv.org/abs/1705.02894).
    "hinge": Game(lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda f, r: -f.mean()),
    # Jolicoeur-Martineau, 2018 (https://arxiv.org/abs/1807.00734), in pairs as in Huang et al., 2025
    # (https://arxiv.org/abs/2501.05441), equation 2.
    "relativistic": Game(
        lambda r, f: softplus(f - r).mean(), lambda f, r: softplus(r - f).mean(),
        relativistic=True, signed=False,
    ),
}  # fmt: skip


def smoothed(r: Tensor, f: Tensor, real: float) -> Tensor:
    """The critic's cross-entropy with the target ``real`` below 1 for real examples, and 0 for others.

    One-sided label smoothing (Salimans et al., 2016, https://arxiv.org/abs/1606.03498, section 3.4): the best
    critic is D = real p_data / (p_data + p_model).

    Raises:
        UserError: a target outside (0, 1].

    >>> smoothed(torch.tensor([2.0]), torch.tensor([-3.0]), 1.0) == _cross_entropy(
    ...     torch.tensor([2.0]), torch.tensor([-3.0]))
    tensor(True)
    """
    if not 0 < real <= 1:
        raise UserError(f"expected a target in (0, 1] for real examples, got {real}", "try 0.9")
    return (real * softplus(-r) + (1 - real) * softplus(r)).mean() + softplus(f).mean()


def drift(r: Tensor) -> Tensor:
    """Mean square of the critic's values of real examples ``(N,)`` (Karras et al., 2017, appendix A.1).

    https://arxiv.org/abs/1710.10196; the authors weigh it by .001. A Wasserstein critic's values are
    determined up to a constant: this keeps them near 0.

    >>> drift(torch.tensor([1.0, 3.0])).item()
    5.0
    """
    return r.square().mean()


def accuracy(r: Tensor, f: Tensor) -> Tensor:
    """The share of examples that the critic takes for what they are, by the sign; .5 if it cannot tell."""
    return 0.5 * ((r > 0).to(torch.float32).mean() + (f < 0).to(torch.float32).mean())
