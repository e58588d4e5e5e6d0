"""What a model is conditioned on, as one map of features: the class everywhere, contexts where they stand."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ancestral.errors import UserError
from ancestral.nn.convolutional import ResidualBlock
from ancestral.nn.embedding import Embedding
from ancestral.spec import Spec


class ContextEncoder(nn.Module):
    """A context ``(N, C, h, w)`` or ``(N, C, t)`` to features ``(N, width, h, w)``.

    It is of codes, intensities or real numbers.

    Args:
        spec: what the context is.
        width: features.
        blocks: residual blocks that it passes.
    """

    def __init__(self, spec: Spec, width: int, blocks: int) -> None:
        super().__init__()
        if len(spec.shape) not in (2, 3):
            raise UserError(
                f"expected a context (C, H, W) or (C, T), got shape {spec.shape}",
                "give it one or two dimensions",
            )
        self.embed = Embedding(spec, width) if spec.levels is not None else None
        channels = spec.shape[0] if self.embed is None else len(self.embed.groups)
        self.network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *(ResidualBlock(width, width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, context: Tensor, dtype: torch.dtype, lengths: Tensor | None = None) -> Tensor:
        """The features, at the context's own resolution; ``lengths`` are what sequences have of their own."""
        context = context.unsqueeze(2) if context.dim() == 3 else context  # a sequence is a map of one row
        features = context.to(dtype) if self.embed is None else self.embed(context, dtype)
        if lengths is None:
            whole: Tensor = self.network(features)
            return whole
        padded = (torch.arange(features.shape[3], device=features.device) >= lengths[:, None])[:, None, None]
        for layer in self.network:  # each sees zeros where there is nothing, as beside the map
            features = layer(features.masked_fill(padded, 0))
        return features


class Conditioner(nn.Module):
    """Labels and contexts to one map ``(N, width, H, W)``; sizes of 1 stand for the same features everywhere.

    Each context is encoded at its own resolution, then repeated up to the grid (van den Oord et al., 2016,
    https://arxiv.org/abs/1606.05328, equation 5); the features of all add up. Of sounds they come at the
    rate of the finest context, and layers repeat what they make of them: a tenth of the work or less.

    Args:
        spec: the data, with ``classes`` and ``contexts``.
        width: features.
        class_conditional: whether labels are used.
        blocks: residual blocks of each context.
    """

    def __init__(self, spec: Spec, width: int, *, class_conditional: bool, blocks: int) -> None:
        super().__init__()
        # Repeated up to a sound of any length, contexts must divide it.
        divide = spec.sequential and not any(spec.shape[-1] % c.shape[-1] for c in spec.contexts)
        self.grid = None if divide else (1, *spec.shape[1:])[-2:]
        self.contexts = spec.contexts
        self.classes = nn.Embedding(spec.classes, width) if spec.classes and class_conditional else None
        self.encoders = nn.ModuleList(ContextEncoder(context, width, blocks) for context in spec.contexts)

    def forward(
        self,
        labels: Tensor | None,
        contexts: Sequence[Tensor],
        dtype: torch.dtype,
        own: tuple[Tensor, int] | None = None,
    ) -> Tensor | None:
        """The condition's map; None for a model without conditions.

        Args:
            labels: classes ``(N,)``.
            contexts: ``(N, *context.shape)`` each.
            dtype: of the map.
            own: of padded sounds, how many values of how many are their own.

        Raises:
            UserError: contexts that are missing, that the model does not have, or of another shape.
        """
        shapes, got = [c.shape for c in self.contexts], [tuple(context.shape[1:]) for context in contexts]
        fitting = [spec.fits((1, *shape)) for spec, shape in zip(self.contexts, got, strict=False)]
        if len(got) != len(shapes) or not all(fitting):
            problem = f"expected {_listed(shapes)}, got {_listed(got)}"
            raise UserError(problem, "give the model what it was trained on")
        size = self.grid or (1, max([1, *(shape[-1] for shape in got)]))
        parts = []
        if self.classes is not None:
            assert labels is not None
            parts.append(self.classes(labels.long())[:, :, None, None])
        for encoder, context in zip(self.encoders, contexts, strict=True):
            lengths = None
            if own is not None:
                lengths = (own[0] * context.shape[-1] + own[1] - 1) // own[1]
            parts.append(interpolate(encoder(context, dtype, lengths), size=size, mode="nearest"))
        return sum(parts[1:], parts[0]) if parts else None


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return f"contexts of shape {', '.join(map(str, shapes))}" if shapes else "no contexts"
