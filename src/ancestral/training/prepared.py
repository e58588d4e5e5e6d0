"""The data of a stage: the splits as they are, or what the stage prepares of them.

That is computed once for all stages that prepare with the same function, and kept in the run directory: a
file for each tensor, written part by part and mapped, so that it need never fit into memory. Beside them
stands what they were made from, and their checksums. These cost a reading of the files whenever a stage
begins, which also brings them into the cache that training then reads from. Files of a run to start from that
were made from the same are taken in place of making them again.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.batch import Batch, Examples
from ancestral.configuration import Configuration, Natural, to_json
from ancestral.data import Dataset, Sounds
from ancestral.errors import UserError
from ancestral.files import Damaged, check_readable, replacing, write_json
from ancestral.model import Model
from ancestral.pipeline import computed, part_size
from ancestral.progress import bar
from ancestral.records import read_record
from ancestral.stages import Stage, needed, owned
from ancestral.weights import state_checksum

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_BATCH = 256
_CHUNK = 2**24
"""Bytes that are read at once to be checked."""
_SPLITS = ("train", "validation")
_ABOUT = "about.json"


@dataclass(frozen=True, kw_only=True)
class _File(Configuration):
    """What the file of a tensor holds: its values alone, row after row."""

    dtype: str
    shape: tuple[Natural, ...]
    sha256: str
    """Over the content, then name, type and shape."""


@dataclass(frozen=True, kw_only=True)
class _About(Configuration):
    """What ``about.json`` holds."""

    weights: str
    """Checksum of the weights that prepared the data."""
    data: str
    """Fingerprint of the data set."""
    files: Mapping[str, _File]
    """By split and name of the tensor: ``train.x``, ``validation.labels``, ..."""


def examples(
    run: Path, stage: Stage, model: Model, data: Dataset[Any], fabric: "Fabric", *, bases: Sequence[Path] = ()
) -> tuple[Examples, Examples]:
    """Training and validation examples of a stage: of sounds, windows as long as the model's spec says.

    What it prepares is made by the first process while the others wait. It is made again if its files are
    damaged, or were made with other weights or of other data.

    Args:
        run: the run directory.
        stage: whose data they are.
        model: whose weights prepare them.
        data: train, validation and test examples.
        fabric: the processes and their device.
        bases: other runs, whose files are taken if they are the same.
    """
    if stage.prepare is None:
        return seen(data, "train", model), seen(data, "validation", model)
    folder = place(run, model, stage)
    if fabric.is_global_zero:
        weights = state_checksum(model, _makers(model, stage))
        if not _is_whole(folder, weights, data.fingerprint):
            others = [place(base, model, stage) for base in bases]
            same = next((other for other in others if _is_whole(other, weights, data.fingerprint)), None)
            with replacing(folder) as temporary:
                temporary.mkdir()
                if same is not None:
                    _take(same, temporary)
                else:
                    model.eval()
                    files = _write(temporary, stage, model, data, fabric.device)
                    about = _About(weights=weights, data=data.fingerprint, files=files)
                    write_json(temporary / _ABOUT, to_json(about))
    fabric.barrier()
    there = read_record(_About, folder / _ABOUT).files
    tensors = {name: _mapped(folder, name, file) for name, file in there.items()}
    train, validation = (
        Batch.of({n.removeprefix(f"{split}."): t for n, t in tensors.items() if n.startswith(f"{split}.")})
        for split in _SPLITS
    )
    return train, validation


def seen(data: Dataset[Any], split: str, model: Model) -> Examples:
    """A split as a stage sees it that prepares nothing: of sounds, their windows."""
    whole = data.split(split)
    return whole.crops(model.spec.shape[-1]) if isinstance(whole, Sounds) else whole


def place(run: Path, model: Model, stage: Stage) -> Path:
    """The folder of what a stage prepares, named after the first stage that prepares the same."""
    sharing = [other.name for other in model.stages() if other.prepare == stage.prepare]
    return run / "codes" / (sharing[0] if sharing else stage.name)


def _take(there: Path, folder: Path) -> None:
    """Have the files of a folder in another one too: the same ones where the system can, else copies.

    Nobody ever writes to them, and each folder goes on without the other.
    """
    print(f"taking the data that {there} holds", flush=True)
    names = [f"{name}.bin" for name in read_record(_About, there / _ABOUT).files]
    for name in (_ABOUT, *names):
        try:
            os.link(there / name, folder / name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(there / name, folder / name)


def _makers(model: Model, stage: Stage) -> set[str]:
    """The names of the weights that may have a part in what a stage prepares.

    They are those of the stages that it needs, and what no stage trains.
    """
    stages = model.stages()
    makers = needed(stage, stages)
    trained = owned(model, [module for other in stages for module in other.modules])
    used = owned(model, [module for other in stages if other.name in makers for module in other.modules])
    return (model.state_dict().keys() - trained) | used


@torch.no_grad()
def _write(
    folder: Path, stage: Stage, model: Model, data: Dataset[Any], device: torch.device
) -> dict[str, _File]:
    """Write what a stage prepares of both splits, a part at a time."""
    assert stage.prepare is not None
    print(f"preparing the data of stage {stage.name}", flush=True)
    columns: dict[str, _Column] = {}
    examples = {name: seen(data, name, model) for name in _SPLITS}
    done, total = 0, sum(map(len, examples.values()))
    with ExitStack() as open_files, bar(f"preparing, {stage.name}", total=total) as tell:
        for split in _SPLITS:
            for rows, part in _parts(examples[split], examples["train"], stage.prepare, device):
                for name, tensor in part.tensors().items():
                    key = f"{split}.{name}"
                    if key not in columns:
                        file = open_files.enter_context((folder / f"{key}.bin").open("wb"))
                        columns[key] = _Column(key, file, tensor.dtype, tuple(tensor.shape[1:]))
                    columns[key].append(tensor)
                done += rows
                tell(done)
    return {name: column.file for name, column in columns.items()}


def _parts(
    split: Examples, train: Examples, function: Callable[[Batch], Batch], device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """What ``function`` makes of a split, part after part, on the CPU, and how many examples each was."""
    if not len(split):  # it has the tensors that other examples have, without a row
        yield 0, function(train[:1].to(device)).to("cpu")[:0]
    size = part_size(split[:1].x.numel(), _BATCH) if len(split) else _BATCH
    places = [slice(start, min(start + size, len(split))) for start in range(0, len(split), size)]
    parts = computed(split, places, lambda part: function(part).tensors(), device)
    for place, part in zip(places, parts, strict=True):
        yield place.stop - place.start, Batch.of(part)


@dataclass
class _Column:
    """The file of a tensor that is written."""

    name: str
    to: IO[bytes]
    dtype: torch.dtype
    row: tuple[int, ...]
    rows: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def append(self, tensor: Tensor) -> None:
        """Write more rows."""
        if (tensor.dtype, tuple(tensor.shape[1:])) != (self.dtype, self.row):
            expected, got = (
                f"{self.dtype} of shape {self.row}",
                f"{tensor.dtype} of {tuple(tensor.shape[1:])}",
            )
            problem = f"expected a stage to prepare {self.name} as {expected} of all examples, got {got}"
            raise UserError(problem, "let its function give the same of each part of the data")
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        self.to.write(content)
        self.digest.update(content)
        self.rows += len(tensor)

    @property
    def file(self) -> _File:
        """What has been written."""
        dtype, shape = str(self.dtype).removeprefix("torch."), (self.rows, *self.row)
        return _File(dtype=dtype, shape=shape, sha256=_sealed(self.digest, self.name, dtype, shape))


def _sealed(digest: "hashlib._Hash", name: str, dtype: str, shape: tuple[int, ...]) -> str:
    digest.update(f"{name} {dtype} {shape}".encode())
    return digest.hexdigest()


def _is_whole(folder: Path, weights: str, data: str) -> bool:
    """Whether a folder holds what these weights prepare of these data, undamaged."""
    try:
        about = read_record(_About, folder / _ABOUT)
        made = (about.weights, about.data) == (weights, data)
        return made and bool(about.files) and all(_matches(folder, n, f) for n, f in about.files.items())
    except Damaged:
        return False


def _matches(folder: Path, name: str, file: _File) -> bool:
    path, digest = folder / f"{name}.bin", hashlib.sha256()
    check_readable(path)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return _sealed(digest, name, file.dtype, file.shape) == file.sha256


def _mapped(folder: Path, name: str, file: _File) -> Tensor:
    """The tensor of a file, which nobody may write to."""
    dtype: torch.dtype = getattr(torch, file.dtype)
    if 0 in file.shape:
        return torch.empty(file.shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(folder / f"{name}.bin", np.uint8, "r")).view(dtype).view(file.shape)
