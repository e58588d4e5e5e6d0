"""What a training is about to do, as lines on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ancestral.data import Dataset
from ancestral.data.dataset import first_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CLASSES = 10
"""Classes that are named."""


def summary(
    data: Dataset[Any],
    parameters: Mapping[str, int],
    memory: Sequence[str],
    fabric: "Fabric",
    precision: str,
) -> str:
    """The data, what was left out of them, the size of each stage's networks, and where they are trained.

    Args:
        data: examples.
        parameters: of each stage, the number that is trained.
        memory: of each stage, what it holds (see ``size.described``).
        fabric: the processes and their device.
        precision: of the arithmetic.
    """
    spec = data.spec
    shape = "x".join(map(str, spec.shape))
    lines = {
        "data": f"{data.source}: {spec.domain} {shape}{data.values}",
        "examples": data.sizes,
    }
    if spec.classes:
        lines["classes"] = f"{spec.classes}: {first_of(data.classes, _CLASSES, ', ')}".rstrip(": ")
    if data.skips:
        lines["skipped"] = data.skips
    if data.duplicates:
        lines["left out"] = f"{data.duplicates:,} that a split held out has too"
    lines["parameters"] = ", ".join(f"{n:,} in {stage}" for stage, n in parameters.items()) or "none to train"
    if memory:
        each = ", for each process" if fabric.world_size > 1 else ""
        lines["memory"] = f"{'; '.join(memory)}; before activations{each}"
    device = fabric.device.type
    if device == "cpu":
        device += f", threads: {torch.get_num_threads()}"
    if fabric.world_size > 1:
        device += f", processes: {fabric.world_size}"
    lines["device"] = f"{device}, precision: {precision}"
    return "\n".join(f"{name:<12}{line}" for name, line in lines.items())
