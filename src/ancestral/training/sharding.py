"""Weights, gradients and the state of optimizers in parts, each process one (FSDP; Zhao et al., 2023).

https://arxiv.org/abs/2304.11277. What the stage at hand trains is in parts, on the devices; a process has the
whole weights of one block at a time, while it computes with them. Whole are: on each device the weights that
the stage needs of other stages; in the memory of the host, once for each process, all of the model; on the
first device, while it evaluates or draws, what that takes (for samples all of the model). So a host holds as
many whole models as it has processes, and the first device must have room for one.

Imported where it is used alone: torch takes a second or two to load what it needs.
"""

import copy
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ancestral.model import Model, repeated_blocks
from ancestral.recipe import Optimization
from ancestral.stages import Stage
from ancestral.training.placement import place
from ancestral.training.work import PhaseLoss


class ShardingStrategy(DDPStrategy):
    """Leaves a module that lies in parts as it is, and copies any other one to all processes, as DDP does."""

    def setup_module(self, module: nn.Module) -> Any:
        """See ``DDPStrategy``."""
        return module if isinstance(module, FSDPModule) else super().setup_module(module)


class Shards:
    """A second copy of a model, which has the weights that a stage trains in parts; steps are its own.

    The model itself stays whole, in the memory of the host. Between ``gather`` and the next step it is what
    there would be without shards, so that whatever looks at it or saves it knows nothing of them.

    Args:
        model: the model, the same in all processes, which must all come here.
        stage: what is trained, of one phase.
        optimization: of the stage.
        device: where the steps are computed.
        resting: names of weights that the steps have no use for: the copy has the model's own, which stay in
            the memory of the host.
    """

    def __init__(
        self,
        model: Model,
        stage: Stage,
        optimization: Optimization,
        device: torch.device,
        resting: Collection[str] = (),
    ) -> None:
        self.model = model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        shared = {id(p): p for name, p in self.model.named_parameters() if name in resting}
        network = copy.deepcopy(self.model, shared)  # where blocks recompute, its own ones do
        names = [n for n, m in self.model.named_modules() if m in stage.modules]
        trained = [network.get_submodule(name) for name in names]
        inside = {id(p) for module in trained for p in module.parameters()}
        frozen = {p for p in network.parameters() if id(p) not in inside}
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for block in repeated_blocks(network, trained):
            fully_shard(block, mesh=mesh)
        self.loss = PhaseLoss(network, optimization)
        """What the strategy takes: the loss of the copy as a forward pass."""
        fully_shard(self.loss, mesh=mesh, ignored_params=frozen)
        place(network, device, resting)
        self.network = network

    def parameters(self, own: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """The copy's parameters that stand for some of the model's, in the same order."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        return [self.network.get_parameter(names[id(p)]) for p in own]

    def like(self, value: Tensor, other: Tensor) -> Tensor:
        """See the function ``like``."""
        return like(value, other)

    def split(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors by their names in the model, each laid out as the copy's."""
        state = self.network.state_dict()
        return {name: like(value, state[name]) for name, value in values.items()}

    @torch.no_grad()
    def gather(self) -> None:
        """Make the copy's weights those of the model. All processes must come here together."""
        own = self.model.state_dict()
        for name, tensor in self.network.state_dict().items():
            own[name].copy_(whole(tensor))


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process has a part, or all; processes must ask for the same one together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor as ``other`` is: this process's part of it on its device, if that one is in parts."""
    if not isinstance(other, DTensor):
        return value.to(other.device)
    value = value.to(other.device)
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are whole, in the memory of the host. All processes must come here together."""
    return {name: whole(tensor).cpu() for name, tensor in tensors.items()}
