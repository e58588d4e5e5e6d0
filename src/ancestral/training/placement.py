"""Where a model's weights are while a stage is trained: on the device what the steps compute with."""

from collections.abc import Collection

import torch
from torch import nn


def place(model: nn.Module, device: torch.device, resting: Collection[str] = ()) -> None:
    """Bring a model to a device, but for the weights named, which rest in the memory of the host.

    Every parameter stays the object that it is, as by ``model.to``.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> place(model, torch.device("meta"), {"1.weight", "1.bias"})
    >>> [str(p.device) for p in model.parameters()]
    ['meta', 'meta', 'cpu', 'cpu']
    """
    state = model.state_dict(keep_vars=True)
    rest = {id(state[name]) for name in resting}
    model._apply(lambda tensor: tensor.to("cpu" if id(tensor) in rest else device))
