"""The data of a stage: the splits as they are, or what the stage prepares of them.

That is computed once and kept in the run directory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.files import Damaged, checksum, read_json, read_tensors, write_json, write_tensors
from ancestral.model import Model
from ancestral.stages import Stage

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_BATCH = 256
_SPLITS = ("train", "validation")


def examples(run: Path, stage: Stage, model: Model, data: Dataset, fabric: "Fabric") -> tuple[Batch, Batch]:
    """Training and validation examples of a stage. What it prepares is made again if its file is damaged."""
    if stage.prepare is None:
        return data.train, data.validation
    file = place(run, stage)
    if fabric.is_global_zero and not _is_whole(file):
        print(f"preparing the data of stage {stage.name}", flush=True)
        model.eval()
        prepared = {name: transform(getattr(data, name), stage.prepare, fabric.device) for name in _SPLITS}
        named = ((name, *item) for name, batch in prepared.items() for item in batch.tensors().items())
        write_tensors(file, {f"{name}.{key}": tensor for name, key, tensor in named})
        write_json(_about(file), {"sha256": checksum(file)})
    fabric.barrier()
    tensors = read_tensors(file)
    train, validation = (
        Batch.of(
            {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        )
        for name in _SPLITS
    )
    return train, validation


def _is_whole(file: Path) -> bool:
    try:
        return bool(read_json(_about(file))["sha256"] == checksum(file))
    except (Damaged, KeyError, TypeError):
        return False


def _about(file: Path) -> Path:
    return file.with_suffix(".json")


def place(run: Path, stage: Stage) -> Path:
    """Where what a stage prepares is kept."""
    return run / "codes" / f"{stage.name}.safetensors"


@torch.no_grad()
def transform(batch: Batch, function: Callable[[Batch], Batch], device: torch.device) -> Batch:
    """``function`` of all examples, a part at a time; the result is in memory."""
    starts = range(0, len(batch), _BATCH)
    return Batch.cat(function(batch[i : i + _BATCH].to(device)).to("cpu") for i in starts)
