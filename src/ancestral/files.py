"""Files that are there whole or not at all. Torch is imported when there are tensors to write or to read."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ancestral.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class Damaged(UserError):
    """A file that is missing, torn or of another kind: what a killed process may leave."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write a file or a folder at.

    It takes the place of ``path`` when the block ends well.

    Raises:
        UserError: the disk is full, the place cannot be written, or there is a folder where a file is to be
            (or the reverse).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _sync(file)
        if (
            path.exists() and path.is_dir() != temporary.is_dir()
        ):  # never remove a folder for the sake of a file
            wanted, got = ("a folder", "a file") if temporary.is_dir() else ("a file", "a folder")
            raise UserError(
                f"expected to write {wanted} {path}, got {got} of that name",
                "move it away or choose another --out",
            )
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        # safetensors reports a full disk as text alone
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise UserError(
                f"expected room to write {path}, got a full disk",
                "free some space and give the same command again",
            ) from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            blocking = next((p for p in path.parents if os.path.lexists(p) and not p.is_dir()), path)
            raise UserError(
                f"expected to write {path}, got {blocking} which is no folder", "choose another --out"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(
                f"expected to write {path}, got: {error.strerror}", "choose another --out"
            ) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # below a file there is nothing to remove
                temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON. Raises Damaged for a file that is missing or holds something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(f"expected the file {path}, got nothing there", "check the path") from None
    except (UnicodeDecodeError, json.JSONDecodeError, IsADirectoryError) as error:
        raise Damaged(f"expected JSON in {path}, got something else ({error})", "check the file") from None


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Write tensors as safetensors, whole or not at all."""
    with replacing(path) as temporary:
        save_tensors(temporary, tensors)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Write tensors as safetensors in place (for a path that ``replacing`` gave)."""
    from safetensors.torch import save_file  # noqa: PLC0415

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read safetensors; nothing is ever unpickled.

    Raises:
        Damaged: the file is missing, torn or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise Damaged(f"expected the file {path}, got nothing there", "check the path") from None
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and not path.is_dir():
            raise UserError(
                f"expected to read {path}, got: {error}", "check the file, or try again"
            ) from None
        raise Damaged(
            f"expected safetensors in {path}, got a file that is torn or of another kind ({error})",
            "check the file",
        ) from None
