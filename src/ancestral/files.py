"""Files that are there whole or not at all. Torch and NumPy are imported when there is something for them."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ancestral.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


_MOST_JSON = 2**26
"""Bytes of a file of JSON that are still read."""
_DEEPEST_JSON = 64
"""Values inside each other that are still read: what goes through them may recurse."""


class Damaged(UserError):
    """A file that is missing, torn or of another kind: what a killed process may leave."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write at, which takes the place of ``path`` when the block ends well.

    It is in a folder of its own beside ``path``, so that nothing but that folder is left by a process that is
    killed meanwhile (``sweep`` removes it).

    Raises:
        UserError: the disk is full, the place cannot be written, or there is a folder where a file is to be
            (or the reverse).
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = folder / path.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _sync(file)
        if path.exists() and path.is_dir() != temporary.is_dir():  # never a folder for the sake of a file
            wanted, got = ("a folder", "a file") if temporary.is_dir() else ("a file", "a folder")
            problem = f"expected to write {wanted} {path}, got {got} of that name"
            raise UserError(problem, "move it away or choose another --out")
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise _told(error, path) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(error: OSError | SafetensorError, path: Path) -> Exception:
    """What kept ``path`` from being written, as a user's mistake if it is one."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(
        error
    ):  # safetensors tells it as text
        problem = f"expected room to write {path}, got a full disk"
        return UserError(problem, "free some space and give the same command again")
    if isinstance(error, FileExistsError | NotADirectoryError):
        blocking = next((p for p in path.parents if os.path.lexists(p) and not p.is_dir()), path)
        problem = f"expected to write {path}, got {blocking} which is no folder"
        return UserError(problem, "choose another --out")
    if isinstance(error, PermissionError) or number == errno.EROFS:
        reason = error.strerror if isinstance(error, OSError) else error
        return UserError(f"expected to write {path}, got: {reason}", "choose another --out")
    return error


def is_leftover(path: Path) -> bool:
    """Whether a path is what ``replacing`` left in a process that was killed and is not running any more.

    >>> is_leftover(Path("runs/.run.json.4194305.tmp")), is_leftover(Path("runs/run.json"))
    (True, False)
    """
    found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's process
        return False
    return int(found[1]) == os.getpid()


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder and below."""
    for leftover in [path for path in folder.rglob(".*.tmp") if is_leftover(path)]:
        shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; where the system has none, processes must not build at once."""
    with path.open("a") as file:
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        # The bytes of a file name that is not UTF-8 become JSON's \udcXX, and are read back as they were.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        Damaged: the file is missing or holds something else.
        UserError: it may not be read.
    """
    check_readable(path)
    if path.stat().st_size > _MOST_JSON:
        raise Damaged(f"expected JSON in {path}, got {path.stat().st_size:,} bytes", "check the file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # other text, numbers without end, nesting without end
        reason = str(error).partition(";")[0]
        raise Damaged(f"expected JSON in {path}, got something else ({reason})", "check the file") from None
    layer: list[Any] = [[content]]
    for _ in range(_DEEPEST_JSON + 1):
        inner = (part.values() if isinstance(part, dict) else part for part in layer)
        layer = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not layer:
            return content
    problem = f"expected JSON in {path}, got more than {_DEEPEST_JSON} values inside each other"
    raise Damaged(problem, "check the file")


def check_readable(path: Path) -> None:
    """Look at a file before its content.

    Raises:
        Damaged: there is none, or something that is no file (a folder, a pipe, which would be waited for).
        UserError: it is there and may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"expected the file {path}, got nothing there", "check the path") from None
    except OSError as error:
        raise UserError(f"expected to read {path}, got: {error.strerror}", "check who may read it") from None
    if not stat.S_ISREG(mode):
        raise Damaged(f"expected the file {path}, got something else of that name", "check the path")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"expected to read {path}, got: {error.strerror}", "check who may read it") from None


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, whole or not at all, with what is said about them."""
    with replacing(path) as temporary:
        save_tensors(temporary, tensors, about)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors at a path that ``replacing`` gave, readable as the umask says."""
    from safetensors.torch import save_file  # noqa: PLC0415

    path.touch()
    mode = path.stat().st_mode
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, dict(about) if about else None)
    path.chmod(mode)  # the library makes its files for their owner alone


def checksum(path: Path) -> str:
    """SHA-256 (hex) of a file's content. Raises like ``check_readable``."""
    check_readable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read safetensors; nothing is ever unpickled.

    Raises:
        Damaged: the file is missing, torn or of another kind.
        UserError: it may not be read.
    """
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, OverflowError) as error:
        problem = f"expected safetensors in {path}, got a file that is torn or of another kind ({error})"
        raise Damaged(problem, "check the file") from None


def read_about(path: Path) -> dict[str, str]:
    """What safetensors say about themselves. Raises like ``read_tensors``."""
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, ValueError, OverflowError) as error:
        problem = f"expected safetensors in {path}, got a file that is torn or of another kind ({error})"
        raise Damaged(problem, "check the file") from None


def read_array(path: Path) -> "NDArray[Any]":
    """The array of a ``.npy`` file, mapped, so that nothing is allocated that its header promises.

    Raises:
        Damaged: the file is missing or holds something else, or objects, which are never unpickled.
        UserError: it may not be read.
    """
    import numpy as np  # noqa: PLC0415

    check_readable(path)
    try:
        with np.errstate(all="raise"):
            return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises nearly every type on a broken header
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"expected an array in {path}, got something else ({reason})"
        raise Damaged(problem, "check the file") from None
