"""What a model is conditioned on, as one map of features: the class everywhere, a spatial context where it stands."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ancestral.errors import UserError
from ancestral.nn.convolutional import ResidualBlock
from ancestral.nn.embedding import Embedding
from ancestral.spec import Spec


class Conditioner(nn.Module):
    """Labels and context to one map ``(N, width, H, W)``; sizes of 1 stand for the same features everywhere.

    A context ``(N, C, h, w)`` of codes, intensities or continuous features passes ``blocks`` residual blocks at its own resolution, then
    is repeated up to the grid (van den Oord et al., 2016, https://arxiv.org/abs/1606.05328, equation 5).

    Args:
        spec: the data, with ``classes`` and ``context``.
        width: features.
        class_conditional: whether labels are used.
        blocks: residual blocks of the context.
    """

    def __init__(self, spec: Spec, width: int, *, class_conditional: bool, blocks: int) -> None:
        super().__init__()
        self.grid = (1, *spec.shape[1:]) if len(spec.shape) == 2 else spec.shape[1:]
        self.context = spec.context
        self.classes = nn.Embedding(spec.classes, width) if spec.classes and class_conditional else None
        self.embed: Embedding | None = None
        self.encoder: nn.Module | None = None
        if spec.context is not None:
            if len(spec.context.shape) not in (2, 3):
                raise UserError(
                    f"expected a context (C, H, W) or (C, T), got shape {spec.context.shape}",
                    "give it one or two dimensions",
                )
            channels = spec.context.shape[0]
            if spec.context.levels is not None:
                self.embed = Embedding(spec.context, width)
                channels = len(self.embed.groups)
            residual = (ResidualBlock(width, width) for _ in range(blocks))
            self.encoder = nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1), *residual, nn.Conv2d(width, width, 3, padding=1)
            )

    def forward(self, labels: Tensor | None, context: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """The condition's map; None for a model without conditions.

        Raises:
            UserError: a context that the model needs or does not have, or of another shape.
        """
        expected = None if self.context is None else self.context.shape
        got = None if context is None else tuple(context.shape[1:])
        if expected != got:
            raise UserError(
                f"expected a context of shape {expected}, got {got}", "give the model what it was trained on"
            )
        parts = []
        if self.classes is not None:
            assert labels is not None
            parts.append(self.classes(labels.long())[:, :, None, None])
        if self.encoder is not None:
            assert context is not None
            features = context.to(dtype) if self.embed is None else self.embed(_map(context), dtype)
            parts.append(interpolate(self.encoder(_map(features)), size=self.grid, mode="nearest"))
        return sum(parts[1:], parts[0]) if parts else None


def _map(x: Tensor) -> Tensor:
    """A sequence ``(N, C, T)`` as the map of one row that it is."""
    return x.unsqueeze(2) if x.dim() == 3 else x
