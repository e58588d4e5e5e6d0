"""Historical averaging (Salimans et al., 2016), https://arxiv.org/abs/1606.03498, section 3.3."""

import torch
from torch import Tensor, nn


class HistoricalAverage(nn.Module):
    r"""The mean of all earlier weights of a module, and how far it has gone from it.

    The means are saved with the module, and take as much memory.

    Args:
        module: whose parameters; it is not a part of this one.
    """

    counted: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, so that it is no child
        self._means: list[str] = []
        self.register_buffer("counted", torch.tensor(0))
        for name, parameter in module.named_parameters():
            self._means.append(name.replace(".", "-"))
            self.register_buffer(self._means[-1], parameter.detach().clone())

    def forward(self, step: Tensor) -> Tensor:
        """The squared distance from the mean of all weights so far, those of ``step`` (from 0) counted."""
        means = [self.get_buffer(name) for name in self._means]
        parameters = list(self._module[0].parameters())
        if self.training:
            with torch.no_grad():
                new = step >= self.counted  # a step may come here several times
                for mean, parameter in zip(means, parameters, strict=True):
                    mean.lerp_(parameter, new / (step.to(mean.dtype) + 1))
                self.counted.copy_(torch.maximum(self.counted, step + 1))
        apart = [(p - mean).square().sum() for p, mean in zip(parameters, means, strict=True)]
        return torch.stack(apart).sum()
