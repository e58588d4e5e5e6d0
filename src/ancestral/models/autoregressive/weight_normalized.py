"""What PixelCNN++ and PixelSNAIL share: a coupled mixture, a feature that shows the map's edges, weights that start from data."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ancestral.model import Batch, Loss
from ancestral.models.autoregressive.base import Autoregressive, Shifted
from ancestral.nn.gated_residual import WeightNormalization
from ancestral.spec import Spec


class WeightNormalized(Shifted):
    """Base of the models of Salimans et al., 2017 and after. They set ``weight_norm`` when their layers stand."""

    weight_norm: WeightNormalization | None

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options that these models share."""

        weight_norm: bool = True
        """Weight normalization, started from the first batch."""
        likelihood: Literal["categorical", "logistic-mixture", "coupled-logistic-mixture"] = (
            "coupled-logistic-mixture"
        )
        """Distribution of a value given the past; code maps take categorical."""

    def __init__(self, config: Config, spec: Spec, *, embedding_width: int) -> None:
        super().__init__(config, spec, embedding_width=embedding_width)
        self.input_groups = torch.cat([self.input_groups, torch.zeros(1, dtype=torch.int64)])

    def features(self, x: Tensor) -> Tensor:
        """See ``Autoregressive.features``; one more feature is 1 inside the map, so that its edges are seen."""
        features = super().features(x)
        return torch.cat([features, torch.ones_like(features[:, :1])], 1)

    def loss(self, batch: Batch, phase: str) -> Loss:
        """See ``Autoregressive.loss``. The first batch in training sets the scale of the weights."""
        if self.weight_norm is not None and self.training:
            self.weight_norm.start(self, lambda: self.log_prob(batch))
        return super().loss(batch, phase)
