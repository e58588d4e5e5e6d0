"""Code maps as files for use elsewhere, and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.errors import UserError
from ancestral.evaluation.code_parquet import Codes
from ancestral.evaluation.sharded_codes import read_code_shards
from ancestral.files import read_about, read_array, read_tensors, replacing, write_tensors

ENDINGS = (".npy", ".safetensors")


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
    *,
    lengths: Tensor | None = None,
) -> None:
    """Write code maps: ``.npy`` (one level alone) or ``.safetensors`` (``level0``, …, ``labels``).

    The lengths of sounds, in samples, stand as ``lengths`` beside codes that are padded to be of one length.
    What is said ``about`` them goes into the metadata of ``.safetensors``, each value as JSON.
    """
    path = Path(path)
    check_codes_path(path)
    if path.suffix == ".safetensors":
        tensors = {f"level{i}": level for i, level in enumerate(codes)}
        said = {name: json.dumps(value) for name, value in (about or {}).items()}
        known = {"labels": labels, "lengths": lengths}
        tensors |= {name: tensor for name, tensor in known.items() if tensor is not None}
        write_tensors(path, tensors, said)
    else:
        if lengths is not None:
            problem = f"expected .safetensors for codes of sounds, whose lengths differ, got {path.name}"
            raise UserError(problem, "change its ending, or leave it out for a folder")
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
    return read_labeled_codes(path, limit).levels


def read_labeled_codes(path: str | Path, limit: int | None = None) -> Codes:
    """What ``read_codes`` reads, with labels and lengths of sounds that are there.

    They are in a folder, or in ``.safetensors``.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
    if path.is_dir():
        return read_code_shards(path).read(limit)
    if path.suffix not in ENDINGS and not path.exists():
        raise UserError(f"expected the folder or file of codes, got {path}", "check the path")
    check_codes_path(path)
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
        levels = [name for i in range(len(tensors)) if (name := f"level{i}") in tensors]
        if not levels:
            got = ", ".join([*tensors][:4]) + ", …" * (len(tensors) > 4) or "nothing"
            problem = f"expected code maps level0, level1, … in {path}, got {got}"
            raise UserError(problem, "give the file that tokenize wrote")
        maps = tuple(tensors[name][:limit] if tensors[name].ndim else tensors[name] for name in levels)
        labels, lengths = (
            _checked(tensors[name], name, tensors["level0"], path)[:limit] if name in tensors else None
            for name in ("labels", "lengths")
        )
        return Codes(maps, labels, lengths)
    array = read_array(path)
    if array.ndim == 0 or array.dtype.kind not in "iu":
        problem = f"expected an array of integers in {path}, got {array.dtype} of shape {array.shape}"
        raise UserError(problem, "give the file that tokenize wrote")
    return Codes((torch.from_numpy(array[:limit].astype(np.int64)),), None)


def _checked(known: Tensor, name: str, level: Tensor, path: Path) -> Tensor:
    """Labels or lengths. Raises UserError unless they are an integer for each example."""
    if known.is_floating_point() or known.is_complex() or known.shape != level.shape[:1]:
        got = f"{str(known.dtype).removeprefix('torch.')} of shape {tuple(known.shape)}"
        problem = f"expected an integer in {name} for each example of {path}, got {got}"
        raise UserError(problem, "mend them, or leave them out")
    return known.long()


def classes_in(path: Path) -> tuple[str, ...]:
    """The names of the classes that labels of codes mean; none if they are not told."""
    if path.is_dir():
        return read_code_shards(path).manifest.class_names
    told = read_about(path).get("classes", "[]") if path.suffix == ".safetensors" else "[]"
    try:
        names = json.loads(told)
    except ValueError:
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
