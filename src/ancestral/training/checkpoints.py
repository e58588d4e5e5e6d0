"""Checkpoints: a folder ``checkpoints/STAGE/step-…`` each, written whole or not at all.

All of it is safetensors and JSON.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.configuration import Configuration, Natural, NonNegative, from_json, to_json
from ancestral.errors import UserError
from ancestral.files import Damaged, checksum, read_json, read_tensors, replacing, save_tensors

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
    best: dict[str, Tensor]
    """The weights of the least validation loss, where they are kept."""
    best_loss: float | None
    best_step: int
    sums: dict[str, tuple[float, int]]
    """Of each term since the last entry of the log: its sum, and how many were added."""
    seconds: float
    """Time spent training so far."""


@dataclass(frozen=True, kw_only=True)
class _State(Configuration):
    """What ``state.json`` holds: all that is no tensor, and a checksum of each file of tensors."""

    stage: str
    step: Natural
    seconds: NonNegative
    updates: Natural
    best_loss: float | None = None
    best_step: Natural = 0
    sums: Mapping[str, tuple[float, int]]
    files: Mapping[str, str]
    """SHA-256 of each file, by the name of what it holds."""


def _digest(state: Any) -> str:
    """SHA-256 of a state as it is written: one of an earlier version lacks fields."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write ``checkpoint`` below ``folder`` and remove the oldest ones of its stage beyond ``keep``."""
    stage = folder / checkpoint.stage
    tensors = {"model": checkpoint.weights, "averages": checkpoint.averages}
    tensors |= {"best": checkpoint.best} if checkpoint.best else {}
    tensors |= {f"optimizer-{phase}": state for phase, state in checkpoint.optimizers.items()}
    with replacing(place(folder, checkpoint.stage, checkpoint.step)) as temporary:
        temporary.mkdir()
        for name, values in tensors.items():
            save_tensors(_file(temporary, name), values)
        state = _State(
            stage=checkpoint.stage,
            step=checkpoint.step,
            seconds=checkpoint.seconds,
            updates=checkpoint.updates,
            best_loss=checkpoint.best_loss,
            best_step=checkpoint.best_step,
            sums=checkpoint.sums,
            files={name: checksum(_file(temporary, name)) for name in tensors},
        )
        content = to_json(state)
        text = json.dumps({"state": content, "digest": _digest(content)}, indent=2)
        (temporary / _STATE).write_text(text, encoding="utf-8")
    for old in _steps(stage)[:-keep]:
        shutil.rmtree(old)


def place(folder: Path, stage: str, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / stage / f"step-{step:08d}"


def latest(folder: Path, stage: str) -> tuple[Checkpoint | None, list[Path]]:
    """The newest checkpoint of ``stage`` that is whole, and those that are newer, which are damaged.

    Raises:
        UserError: a checkpoint is there and may not be read, which is no damage.
    """
    damaged: list[Path] = []
    for path in reversed(_steps(folder / stage)):
        try:
            return read(path), damaged
        except Damaged:
            damaged.append(path)
    return None, damaged


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, which then neither counts among those kept nor is lost; its new name."""
    aside = path.with_name(f"torn-{path.name}")
    n = 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"torn-{n}-{path.name}")
    return path.rename(aside)


def _steps(stage: Path) -> list[Path]:
    return sorted(path for path in stage.glob("step-*") if path.is_dir())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder.

    Raises:
        Damaged: it is not what was written there: a file is missing, torn or has another checksum.
        UserError: it may not be read.
    """
    written = read_json(path / _STATE)
    try:
        state = from_json(_State, written["state"])
        if written["digest"] != _digest(written["state"]) or path != place(
            path.parents[1], state.stage, state.step
        ):
            raise ValueError
    except (UserError, KeyError, TypeError, ValueError):
        raise Damaged(
            f"expected the state of a checkpoint in {path / _STATE}, got another", "restore it"
        ) from None
    for name, expected in state.files.items():
        if checksum(_file(path, name)) != expected:
            raise Damaged(
                f"expected {_file(path, name)} as it was written, got another content", "restore it"
            )
    tensors = {name: read_tensors(_file(path, name)) for name in state.files}
    if not {"model", "averages"} <= tensors.keys():
        raise Damaged(f"expected weights in {path}, got none", "restore it")
    return Checkpoint(
        stage=state.stage,
        step=state.step,
        weights=tensors["model"],
        optimizers={
            n.removeprefix("optimizer-"): t for n, t in tensors.items() if n.startswith("optimizer-")
        },
        averages=tensors["averages"],
        updates=state.updates,
        best=tensors.get("best", {}),
        best_loss=state.best_loss,
        best_step=state.best_step,
        sums=dict(state.sums),
        seconds=state.seconds,
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


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    flat: dict[str, Tensor],
    laid_out: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    """The inverse of ``flatten_optimizer``.

    Args:
        optimizer: what is restored.
        flat: its state.
        laid_out: what is made of a value of a parameter's shape, and the parameter (``sharding.like``).
    """
    lay_out = laid_out or _like
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        same = value.shape == parameter.shape
        state.setdefault(int(index), {})[name] = lay_out(value, parameter) if same else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A value as its parameter lies in memory: fused optimizers walk through both side by side."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
