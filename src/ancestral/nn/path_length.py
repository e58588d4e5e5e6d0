"""Path length regularization (Karras et al., 2019), https://arxiv.org/abs/1912.04958, section 3.2."""

import math

import torch
from torch import Tensor

from ancestral.nn.normalization import mean_over_processes

_DECAY = 0.01


def path_penalty(w: Tensor, images: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean of :math:`(\lVert J_w^T y \rVert_2 - a)^2`, y normal images, a the running mean of the lengths.

    Args:
        w: vectors of each layer ``(N, layers, styles)``, which the images depend on.
        images: ``(N, C, H, W)``.
        mean: a, a scalar that follows the lengths by a hundredth each time, in place.

    Returns:
        The penalty, which can be differentiated, and the mean length of these.
    """
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    (gradients,) = torch.autograd.grad((images * noise).sum(), w, create_graph=True)
    lengths = gradients.float().square().sum(2).mean(1).sqrt()
    with torch.no_grad():
        mean.lerp_(mean_over_processes(lengths.mean()).to(mean), _DECAY)
    return (lengths - mean).square().mean(), lengths.mean().detach()
