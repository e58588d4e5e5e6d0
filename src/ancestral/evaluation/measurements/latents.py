"""Pictures of what a model has learned: interpolations, a grid through the latent space, maps of codes."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import ContinuousLatents, Decodes, Styled, Tokenizer
from ancestral.evaluation.batches import batches
from ancestral.evaluation.film import circle, mixed
from ancestral.evaluation.measurement import MOST_CLASSES, Examined, Result
from ancestral.media import Pixels, grid, picture, to_pixels
from ancestral.model import Model

_STEPS, _ROWS = 10, 10
_TRUNCATIONS, _MIXED = (0.1, 0.3, 0.5, 0.7, 0.85, None), 9
_SHOWN = 2000
"""Examples that the grid is made from."""


def applies(model: Model) -> bool:
    """Of models with a latent vector for each example or sample, and of tokenizers of images."""
    return isinstance(model, Decodes) or (isinstance(model, Tokenizer) and model.spec.domain == "image")


def measure(examined: Examined) -> Result:
    """Pictures alone."""
    model = examined.model
    if isinstance(model, Tokenizer):
        return Result(pictures={"latent": lambda: code_maps(model, examined.some(12).x)})
    if not isinstance(model, ContinuousLatents):
        assert isinstance(model, Decodes)
        return Result(pictures=_of_samples(model) if model.spec.domain == "image" else {})
    labels, by_class = examined.examples.labels, model.sample_classes > 0
    if model.spec.domain != "image" or (by_class and labels is None):
        return Result()
    pictures = {}
    if not by_class and _embed(model, examined.some(1)).shape[1] < model.spec.dims:
        # Of as many latents as pixels, two say little.
        pictures["latent"] = lambda: latent_grid(model, examined.some(_SHOWN).x)
    if len(examined.examples) > 1:
        pictures["interpolations"] = lambda: interpolations(model, _pairs(examined.some(_SHOWN), by_class))
    if labels is not None and 1 < len(labels.unique()) <= MOST_CLASSES:
        pictures["classes"] = lambda: class_differences(model, examined.some(_SHOWN))
    return Result(pictures=pictures)


@torch.no_grad()
def _of_samples(model: Decodes) -> dict[str, Callable[[], Pixels]]:
    """Between drawn latents; and where the model draws by class, a row of the same latents in each class."""
    z, classes = model.draw_latents(2 * _ROWS), min(model.sample_classes, MOST_CLASSES)
    labels = torch.arange(_ROWS, device=z.device) % model.sample_classes if classes else None
    pictures = {"interpolations": lambda: _between(model, z, labels)}
    if classes:
        same = z[:_ROWS]
        given = torch.arange(classes, device=z.device)
        pictures["by-class"] = lambda: picture(
            model.spec,
            model.decode(same.repeat(classes, 1), given.repeat_interleave(len(same))),
            columns=len(same),
        )
        if model.mixes_classes and classes > 1:
            pictures["between-classes"] = lambda: _between_classes(model, same, classes)
    if "truncation" in model.sampling_options:
        pictures["truncations"] = lambda: _truncations(model, labels)
    if isinstance(model, Styled):
        pictures["styles"] = lambda: mixed_styles(model, z, labels)
        pictures["noise"] = lambda: _noises(model, z[:_ROWS], labels)
    return pictures


def _truncations(model: Decodes, labels: Tensor | None) -> Pixels:
    """The same draws, a column each, from truncated to nearly nothing down to not at all."""
    rows = []
    for share in _TRUNCATIONS:
        generator = torch.Generator(model.device).manual_seed(0)
        rows.append(model.sample(_ROWS, labels, truncation=share, generator=generator))
    return picture(model.spec, torch.cat(rows), columns=_ROWS)


@torch.no_grad()
def mixed_styles(model: Styled, z: Tensor, labels: Tensor | None) -> Pixels:
    """Karras et al., 2018, figure 3: those of a column with the coarse styles of a row, or its middle ones.

    The first row and the first column are the sources; in the rows below, coarse styles (of the first third
    of the layers) are the row's, then middle ones, then fine ones.
    """
    n = min(_MIXED, len(z) // 2)
    first = labels[:1].expand(2 * n) if labels is not None else None  # of one class: w depends on it
    v = model.vectors(z[: 2 * n], first)
    across, down, layers = v[:n], v[n:], v.shape[1]
    ends = [round(layers * i / 3) for i in range(4)]
    blank = torch.full_like(model.render(v[:1], None if first is None else first[:1]), 1.0)
    tiles = [blank, model.render(across, None if first is None else first[:n])]
    for start, end in pairwise(ends):
        for row in down[: max(1, n // 3)]:
            coarse = row.unsqueeze(0)
            mixed_in = model.mix(across, coarse, range(start, end)) if end > start else across
            given = torch.cat([coarse, mixed_in])
            tiles.append(model.render(given, None if first is None else first[: n + 1]))
    shown = torch.cat(tiles)
    return picture(model.spec, _as_examples(model, shown), columns=n + 1)


@torch.no_grad()
def _noises(model: Styled, z: Tensor, labels: Tensor | None) -> Pixels:
    """Images with noise, above the same without it."""
    v = model.vectors(z, labels)
    shown = torch.cat([model.render(v, labels, noise=noise) for noise in (True, False)])
    return picture(model.spec, _as_examples(model, shown), columns=len(z))


def _as_examples(model: Model, y: Tensor) -> Tensor:
    return y.float() if model.spec.levels is None else model.spec.unscale(y)


@torch.no_grad()
def _between_classes(model: Decodes, z: Tensor, classes: int) -> Pixels:
    """From each class to the next with the same latents, a row each."""
    firsts = torch.arange(len(z), device=z.device).repeat_interleave(_STEPS) % classes
    shares = torch.linspace(0, 1, _STEPS, dtype=z.dtype, device=z.device).repeat(len(z)).unsqueeze(-1)
    given = mixed(firsts, (firsts + 1) % classes, shares, model.sample_classes)
    return picture(model.spec, model.decode(z.repeat_interleave(_STEPS, 0), given), columns=_STEPS)


def _embed(model: ContinuousLatents, batch: Batch) -> Tensor:
    """Latents of examples, of whose classes only a model that draws by class hears."""
    parts = batches(len(batch), "latents", device=model.device, show=False, dims=model.spec.dims)
    labels = batch.labels if model.sample_classes else None
    return torch.cat([model.embed(batch.x[part], None if labels is None else labels[part]) for part in parts])


def _pairs(batch: Batch, by_class: bool) -> Batch:
    """Up to twenty examples, every two the ends of an interpolation, of one class if need be."""
    if not by_class:
        return batch.some(20)
    assert batch.labels is not None
    found = [(batch.labels == c).nonzero().flatten()[:2] for c in batch.labels.unique()[:10]]
    return batch[torch.cat([pair for pair in found if len(pair) == 2])]


@torch.no_grad()
def class_differences(model: ContinuousLatents, batch: Batch) -> Pixels:
    """An example of each class, a row each, made into the other classes in turn, a column each.

    The difference of the classes' mean latents is added to its own (Kingma & Dhariwal, 2018,
    https://arxiv.org/abs/1807.03039, figure 6), or a model that draws by class is asked for another class
    with the same latents; the diagonal is the example itself.
    """
    assert batch.labels is not None
    z, classes = _embed(model, batch), batch.labels.unique()
    firsts = torch.stack([z[batch.labels == c][0] for c in classes])
    if model.sample_classes:
        moved, labels = firsts.repeat_interleave(len(classes), 0), classes.repeat(len(classes))
        return picture(model.spec, model.decode(moved, labels), columns=len(classes))
    means = torch.stack([z[batch.labels == c].mean(0) for c in classes])
    moved = firsts.unsqueeze(1) + means.unsqueeze(0) - means.unsqueeze(1)
    return picture(model.spec, model.decode(moved.flatten(0, 1)), columns=len(classes))


@torch.no_grad()
def interpolations(model: ContinuousLatents, batch: Batch) -> Pixels:
    """Rows from one example to the next, on the great circle between their latents."""
    z = _embed(model, batch)
    labels = batch.labels[0::2][: len(z) // 2] if model.sample_classes and batch.labels is not None else None
    return _between(model, z, labels)


def _between(model: Decodes, z: Tensor, labels: Tensor | None) -> Pixels:
    """From every second latent vector to the next, a row each, of one class each where there are any."""
    weights = torch.linspace(0, 1, _STEPS, device=z.device).unsqueeze(-1)
    points = torch.cat([circle(a, b, weights) for a, b in zip(z[0::2], z[1::2], strict=False)])
    decoded = model.decode(points, None if labels is None else labels.repeat_interleave(_STEPS))
    return picture(model.spec, decoded, columns=_STEPS)


@torch.no_grad()
def latent_grid(model: ContinuousLatents, x: Tensor, size: int = 12) -> Pixels:
    """Decoded points of a plane through the latent space at even quantiles of the prior.

    The plane is that of the two dimensions in which the latent vectors of the examples ``x`` vary most
    (Kingma & Welling, 2013, figure 4, in more dimensions).
    """
    z = model.embed(x)
    first, second = z.var(0).topk(2).indices.tolist() if z.shape[1] > 1 else (0, 0)
    quantiles = torch.special.ndtri(torch.linspace(0.02, 0.98, size, dtype=torch.float64)).to(z)
    points = z.new_zeros(size, size, z.shape[1])
    points[..., first] = quantiles.view(1, -1)
    points[..., second] = quantiles.flip(0).view(-1, 1)
    return picture(model.spec, model.decode(points.flatten(0, 1)), columns=size)


@torch.no_grad()
def code_maps(model: Tokenizer, x: Tensor) -> Pixels:
    """Images above their code maps, one row a level.

    Colors are the first three principal components of the code vectors.
    """
    height, width = model.spec.shape[1:]
    originals = to_pixels(x if len(x[0]) == 3 else x[:, :1], model.spec)
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
    return grid(np.concatenate(rows), columns=len(x))
