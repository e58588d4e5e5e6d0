"""Penalties on a critic's gradient at its input.

Each takes a critic as a function of examples ``(N, *shape)`` to ``(N,)`` that treats them one by one, and
gives a mean over the batch which can be differentiated again.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def input_gradients(critic: Critic, x: Tensor) -> Tensor:
    """The gradient of each example's value at the example, ``(N, D)``, in at least float32."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        # Of the sum: an example's gradient is its own, where that of the mean would be N times smaller.
        total = critic(x).sum()
        (gradients,) = torch.autograd.grad(total, x, create_graph=True)
    wide = gradients.float() if gradients.dtype in (torch.bfloat16, torch.float16) else gradients
    return wide.flatten(1)


def lipschitz_penalty(critic: Critic, real: Tensor, fake: Tensor, target: float = 1.0) -> Tensor:
    r"""Mean of :math:`(\lVert \nabla D(\hat x) \rVert_2 - \gamma)^2 / \gamma^2` between real and fake.

    Gulrajani et al., 2017 (https://arxiv.org/abs/1704.00028), equation 3, where :math:`\gamma` is 1; with
    others Karras et al., 2017 (https://arxiv.org/abs/1710.10196), appendix. Each pair has a random point of
    its own. A gradient of zero has a norm whose gradient is zero too.

    >>> w = torch.tensor([3.0, 4.0])
    >>> lipschitz_penalty(lambda x: x @ w, torch.zeros(8, 2), torch.ones(8, 2)).item()
    16.0
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    between = share * real + (1 - share) * fake
    norms = torch.linalg.vector_norm(input_gradients(critic, between), dim=1)
    return (norms - target).square().mean() / target**2


def zero_centered_penalty(critic: Critic, x: Tensor) -> Tensor:
    r"""Mean of :math:`\frac12 \lVert \nabla D(x) \rVert_2^2`: R1 of real examples, R2 of generated ones.

    Mescheder et al., 2018 (https://arxiv.org/abs/1801.04406), equation 9.

    >>> w = torch.tensor([3.0, 4.0])
    >>> zero_centered_penalty(lambda x: x @ w, torch.zeros(8, 2)).item()
    12.5
    """
    return 0.5 * input_gradients(critic, x).square().sum(1).mean()
