"""What PixelCNN++ and PixelSNAIL share: coupled channels, a feature of the map's edges, a start from data."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.models.autoregressive.base import Autoregressive, Shifted
from ancestral.nn.gated_residual import GatedResidual
from ancestral.nn.weight_normalization import start_from_data
from ancestral.spec import Spec
from ancestral.stages import Stage


class WeightNormalized(Shifted):
    """Base of the models of Salimans et al., 2017 and after, which normalize their weights."""

    repeated = (*Shifted.repeated, GatedResidual)

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
        """See ``Autoregressive.features``; one more is 1 inside the map, so that its edges are seen."""
        features = super().features(x)
        return torch.cat([features, torch.ones_like(features[:, :1])], 1)

    def stages(self) -> tuple[Stage, ...]:
        """See ``Model.stages``. The first batch sets the scale of normalized weights."""
        (stage,) = super().stages()
        return (replace(stage, initialize=self.start if self.config.weight_norm else None),)

    def start(self, batch: Batch) -> None:
        """See ``Stage.initialize``."""
        # The second convolutions of residual blocks start small.
        small = {block.second for block in self.modules() if isinstance(block, GatedResidual)}
        start_from_data(self, lambda: self.log_likelihood(batch), small)
