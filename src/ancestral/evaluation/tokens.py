"""Code maps as files for use elsewhere, and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.code_shards import read_code_shards
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.files import read_array, read_tensors, replacing, write_tensors
from ancestral.memory import check_room
from ancestral.model import Model

ENDINGS = (".npy", ".safetensors")


def as_tokenizer(model: Model) -> Tokenizer:
    """The model as a tokenizer. Raises UserError if it is none."""
    if not isinstance(model, Tokenizer):
        raise UserError(
            f"expected a model with code maps, got {type(model).__name__}",
            "train a tokenizer: ancestral train vqvae",
        )
    return model


@undisturbed
@torch.no_grad()
def tokenize(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    *,
    split: str = "train",
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The code maps of a split, ``(N, M, h, w)`` for each level, and their labels ``(N,)`` if there are any.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples ``(N, *shape)``; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, or the data do not fit it.
    """
    subject = Subject.find(model, device)
    tokenizer = as_tokenizer(subject.model)
    examples = subject.examples(data, split, None, preparation)
    return encode(tokenizer, examples.x, show=progress), examples.labels


def encode(tokenizer: Tokenizer, x: Tensor, *, show: bool) -> tuple[Tensor, ...]:
    """The code maps of examples ``(N, *shape)``: ``(N, M, h, w)`` of each level's dtype, on the CPU."""
    parts = batches(len(x), "tokenizing", device=tokenizer.device, show=show)
    levels = zip(*(tokenizer.tokenize(x[part].to(tokenizer.device)) for part in parts), strict=True)
    specs = tokenizer.code_specs()
    return tuple(torch.cat(maps).cpu().to(spec.dtype) for maps, spec in zip(levels, specs, strict=True))


@undisturbed
@torch.no_grad()
def detokenize(
    model: Trained,
    codes: tuple[Tensor, ...],
    *,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Examples ``(N, *shape)`` from code maps.

    Args:
        model: a model, a run or its directory, or a Hub name.
        codes: a map ``(N, M, h, w)`` for each level (``read_codes`` reads them from a file).
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, or the codes are not of this model's shape and range.
    """
    tokenizer = as_tokenizer(Subject.find(model, device).model)
    tokenizer.check_codes(codes)
    n, spec = len(codes[0]), tokenizer.spec
    size = n * spec.dims * spec.dtype.itemsize
    check_room(size, f"{n:,} decoded examples", "decode fewer (--n), or shard after shard")
    parts = batches(len(codes[0]), "decoding", device=tokenizer.device, show=progress)
    return torch.cat(
        [
            tokenizer.detokenize(tuple(level[part].to(tokenizer.device).long() for level in codes)).cpu()
            for part in parts
        ]
    )


def check_codes_path(path: Path) -> None:
    """Raise UserError for a file of codes that is neither .npy nor .safetensors."""
    if path.suffix not in ENDINGS:
        raise UserError(f"expected a file .npy or .safetensors, got {path.name}", "change its ending")


def is_codes_folder(path: Path) -> bool:
    """Whether codes at a path are a folder of shards, and not a file: it is one, or has no ending.

    Raises UserError for the ending of another file: no folder is likely to be meant by codes.npz.

    >>> [is_codes_folder(Path(name)) for name in ("codes", "codes.npy", "codes-0.5")]
    [True, False, True]
    """
    if path.suffix in ENDINGS:
        return False
    if path.suffix[1:2].isalpha() and not path.is_dir():
        problem = f"expected a file .npy or .safetensors, got {path.name}"
        raise UserError(problem, "change its ending, or leave it out for a folder")
    return True


def write_codes(
    path: str | Path,
    codes: tuple[Tensor, ...],
    labels: Tensor | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write code maps: ``.npy`` (one level alone) or ``.safetensors`` (``level0``, …, ``labels``).

    What is said ``about`` them goes into the metadata of ``.safetensors``, each value as JSON.
    """
    path = Path(path)
    check_codes_path(path)
    if path.suffix == ".safetensors":
        tensors = {f"level{i}": level for i, level in enumerate(codes)}
        said = {name: json.dumps(value) for name, value in (about or {}).items()}
        write_tensors(path, tensors | ({"labels": labels} if labels is not None else {}), said)
    else:
        if len(codes) > 1:
            raise UserError(f"expected one level of codes for .npy, got {len(codes)}", "write .safetensors")
        array = np.ascontiguousarray(codes[0].numpy())
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)  # np.save would tell of a full disk without saying so


def read_codes(path: str | Path, limit: int | None = None) -> tuple[Tensor, ...]:
    """Read what ``write_codes`` or ``tokenize_shards`` wrote, or its first ``limit`` examples.

    Of a folder with several splits, one after another. Nothing is unpickled.

    Raises UserError for anything else, and for more than the memory holds.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
    if path.is_dir():
        return read_code_shards(path).codes(limit)
    check_codes_path(path)
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
        levels = [name for i in range(len(tensors)) if (name := f"level{i}") in tensors]
        if not levels:
            raise UserError(
                f"expected code maps level0, level1, … in {path}, got {', '.join(tensors) or 'nothing'}",
                "give the file that tokenize wrote",
            )
        return tuple(tensors[name][:limit] if tensors[name].ndim else tensors[name] for name in levels)
    array = read_array(path)
    if array.ndim == 0 or array.dtype.kind not in "iu":
        problem = f"expected an array of integers in {path}, got {array.dtype} of shape {array.shape}"
        raise UserError(problem, "give the file that tokenize wrote")
    return (torch.from_numpy(array[:limit].astype(np.int64)),)
