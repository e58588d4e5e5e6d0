"""Checkpoints: a folder ``checkpoints/STAGE/step-…`` each, written whole or not at all.

All of it is safetensors and JSON.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.files import Damaged, read_json, read_tensors, replacing, save_tensors

_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after ``step`` steps of ``stage``."""

    stage: str
    step: int
    weights: dict[str, Tensor]
    optimizers: dict[str, dict[str, Tensor]]
    """By phase: the state of the optimizer that it owns, flattened to ``INDEX.NAME``."""
    averages: dict[str, Tensor]
    updates: int
    """Updates of the averages so far."""
    seconds: float
    """Time spent training so far."""


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write ``checkpoint`` below ``folder`` and remove the oldest ones of its stage beyond ``keep``."""
    stage = folder / checkpoint.stage
    with replacing(place(folder, checkpoint.stage, checkpoint.step)) as temporary:
        temporary.mkdir()
        save_tensors(temporary / "model.safetensors", checkpoint.weights)
        for phase, tensors in checkpoint.optimizers.items():
            save_tensors(temporary / f"optimizer-{phase}.safetensors", tensors)
        if checkpoint.averages:
            save_tensors(temporary / "averages.safetensors", checkpoint.averages)
        description = {
            "stage": checkpoint.stage,
            "step": checkpoint.step,
            "seconds": checkpoint.seconds,
            "phases": list(checkpoint.optimizers),
            "updates": checkpoint.updates,
        }
        (temporary / _STATE).write_text(
            json.dumps(description | {"averages": bool(checkpoint.averages)}), encoding="utf-8"
        )
    for old in _steps(stage)[:-keep]:
        shutil.rmtree(old)


def place(folder: Path, stage: str, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / stage / f"step-{step:08d}"


def latest(folder: Path, stage: str) -> tuple[Checkpoint | None, list[Path]]:
    """The newest checkpoint of ``stage`` that is whole, and those that are newer, which are torn."""
    torn: list[Path] = []
    for path in reversed(_steps(folder / stage)):
        try:
            return read(path), torn
        except (Damaged, KeyError, TypeError):
            torn.append(path)
    return None, torn


def set_aside(path: Path) -> Path:
    """Rename a torn checkpoint, so that it neither counts among those kept nor is lost; where it is now."""
    aside = path.with_name(f"torn-{path.name}")
    n = 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"torn-{n}-{path.name}")
    return path.rename(aside)


def clean(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for leftover in folder.rglob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _steps(stage: Path) -> list[Path]:
    return sorted(stage.glob("step-*"))


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder. Raises Damaged, KeyError or TypeError if it is torn."""
    state = read_json(path / _STATE)
    return Checkpoint(
        stage=state["stage"],
        step=state["step"],
        weights=read_tensors(path / "model.safetensors"),
        optimizers={
            phase: read_tensors(path / f"optimizer-{phase}.safetensors") for phase in state["phases"]
        },
        averages=read_tensors(path / "averages.safetensors") if state["averages"] else {},
        updates=state["updates"],
        seconds=state["seconds"],
    )


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors by name; its options are the configuration's."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """The inverse of ``flatten_optimizer``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # Fused optimizers walk through parameter and state side by side in memory: one layout for both.
        laid_out = (
            torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            if value.shape == parameter.shape
            else value
        )
        state.setdefault(int(index), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
