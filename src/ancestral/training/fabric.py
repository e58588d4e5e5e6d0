"""Where a training runs: devices, processes, and whether steps can be compiled."""

import os
import shutil
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch

from ancestral.errors import UserError
from ancestral.processes import launched, own_process
from ancestral.training.options import TrainingOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def end_with_launcher() -> None:
    """Have this process told to stop (SIGTERM) when torchrun, which started it, is killed (Linux)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        die_with_parent = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGTERM)


def processes() -> int:
    """Processes that torchrun started for this training; 1 without it."""
    return own_process()[1] if launched() else 1


def precision_of(options: TrainingOptions) -> Literal["32-true", "bf16-mixed", "64-true"]:
    """The arithmetic of a step: if it is left to the device, what pays there."""
    if options.precision != "auto":
        return options.precision
    if options.device != "cpu" and torch.cuda.is_available():
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        pays = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
    return "bf16-mixed" if pays else "32-true"


def build_fabric(options: TrainingOptions, *, unused_parameters: bool = False) -> "Fabric":
    """Fabric for one process, or for the processes that torchrun started."""
    # Takes longer to import than torch, and the help of a command has no use for it.
    from lightning_fabric import Fabric  # noqa: PLC0415
    from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, got none", "choose --device auto")
    if options.strategy == "fsdp" and processes() == 1:
        problem = "expected several processes to shard a model over, got one"
        raise UserError(problem, "start them with torchrun, or leave --strategy out")
    accelerator = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    if not launched():
        return Fabric(accelerator=accelerator, devices=1, precision=precision_of(options))
    end_with_launcher()
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    # One process prepares the data of a stage while the others wait.
    kind = DDPStrategy
    if options.strategy == "fsdp":
        from ancestral.training.sharding import ShardingStrategy as kind  # noqa: PLC0415, N813
    strategy = kind(
        find_unused_parameters=unused_parameters, broadcast_buffers=False, timeout=timedelta(hours=12)
    )
    nodes = processes() // local
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision_of(options),
    )
    fabric.launch()
    return fabric


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works for a device.

    On a CPU it takes a C++ compiler, which is no condition for training.
    """
    return device.type != "cpu" or any(
        shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")
    )
