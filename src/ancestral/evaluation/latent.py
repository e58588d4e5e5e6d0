"""Pictures of what a model has learned: interpolations, a grid through the latent space, maps of codes."""

import numpy as np
import torch
from torch import Tensor

from ancestral.data.sheets import Pixels, sheet, side_by_side, to_pixels
from ancestral.model import ContinuousLatents, Model, Reconstructs, Tokenizer
from ancestral.spec import Spec

_STEPS = 10


def pictures(model: Model, x: Tensor) -> dict[str, Pixels]:
    """Every picture that the model's capabilities allow, by name, from examples ``(N, *shape)``."""
    result = {}
    if isinstance(model, Reconstructs):
        result["reconstructions"] = reconstructions(model, x[:32])
    if isinstance(model, ContinuousLatents):
        if len(x) > 1:
            result["interpolations"] = interpolations(model, x[:20])
        result["latent"] = latent_grid(model, x)
    if isinstance(model, Tokenizer):
        result["latent"] = code_maps(model, x[:12])
    return result


def reconstructions(model: Reconstructs, x: Tensor) -> Pixels:
    """Rows of originals, each above the row of the model's versions."""
    assert isinstance(model, Model)
    return side_by_side(model.spec, x, model.reconstruct(x))


@torch.no_grad()
def interpolations(model: ContinuousLatents, x: Tensor) -> Pixels:
    """Each row leads from one example of ``x`` ``(N, *shape)`` to the next, along the great circle between their latent vectors.

    A straight line between two draws of a high-dimensional normal leaves the shell where its mass is (White, 2016,
    https://arxiv.org/abs/1609.04468).
    """
    assert isinstance(model, Model)
    z = model.embed(x)
    weights = torch.linspace(0, 1, _STEPS, device=z.device).unsqueeze(-1)
    rows = [model.decode(_slerp(a, b, weights)) for a, b in zip(z[0::2], z[1::2], strict=False)]
    return sheet(torch.cat(rows), model.spec, columns=_STEPS)


def _slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    angle = torch.acos(torch.cosine_similarity(a, b, dim=0).clamp(-0.9999, 0.9999))
    return (torch.sin((1 - weights) * angle) * a + torch.sin(weights * angle) * b) / torch.sin(angle)


@torch.no_grad()
def latent_grid(model: ContinuousLatents, x: Tensor, size: int = 12) -> Pixels:
    """Decoded points of a plane through the latent space at even quantiles of the prior (Kingma & Welling, 2013, figure 4).

    The plane is that of the two dimensions in which the latent vectors of the examples ``x`` vary most.
    """
    assert isinstance(model, Model)
    z = model.embed(x)
    first, second = z.var(0).topk(2).indices.tolist() if z.shape[1] > 1 else (0, 0)
    quantiles = torch.special.ndtri(torch.linspace(0.02, 0.98, size, dtype=torch.float64)).to(z)
    points = z.new_zeros(size, size, z.shape[1])
    points[..., first] = quantiles.view(1, -1)
    points[..., second] = quantiles.flip(0).view(-1, 1)
    return sheet(model.decode(points.flatten(0, 1)), model.spec, columns=size)


@torch.no_grad()
def code_maps(model: Tokenizer, x: Tensor) -> Pixels:
    """Examples above their code maps, one row a level; colors are the first three principal components of the code vectors."""
    assert isinstance(model, Model)
    height, width = model.spec.shape[1:]
    originals = to_pixels(x, model.spec)
    if originals.ndim == 3:
        originals = originals[..., None].repeat(3, -1)
    rows = [originals]
    for vectors in model.code_vectors(model.tokenize(x)):
        flat = vectors.movedim(1, -1).flatten(0, -2).double()
        centered = flat - flat.mean(0)
        axes = torch.linalg.svd(centered, full_matrices=False).Vh[:3]
        colors = centered @ axes.t()
        low, high = colors.quantile(0.02, dim=0), colors.quantile(0.98, dim=0)
        colors = ((colors - low) / (high - low).clamp(min=1e-12) * 255).clamp(0, 255)
        if colors.shape[1] < 3:
            colors = colors[:, :1].expand(-1, 3)
        maps = colors.view(len(x), *vectors.shape[2:], 3).round().cpu().numpy().astype(np.uint8)
        rows.append(maps.repeat(height // maps.shape[1], 1).repeat(width // maps.shape[2], 2))
    tiles = torch.from_numpy(np.concatenate(rows)).movedim(-1, 1)
    return sheet(tiles, Spec(shape=(3, height, width)), columns=len(x))
