"""A folder of shards that one process fills or several, and go on with when they are killed.

Its manifest, written first, says what the shards depend on. Each shard is there whole or not at all.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import torch

from ancestral.configuration import Configuration, differences, to_json
from ancestral.errors import UserError
from ancestral.files import is_leftover, sweep, write_json
from ancestral.records import read_record

M = TypeVar("M", bound=Configuration)

MANIFEST = "manifest.json"
_LONG = 120


def begin(out: Path, manifest: M, check: Callable[[Path, M, M], None]) -> None:
    """Write the manifest, unless it is there, and remove what killed processes left half-written.

    ``check`` is given the folder, the manifest that is there and this one, if they differ.

    Raises:
        UserError: the folder holds something else, or what ``check`` refuses.
    """
    # Listed before the manifest is looked for: another process may write it now, and shards after it.
    there = list(out.iterdir()) if out.is_dir() else []
    before = read_record(type(manifest), out / MANIFEST) if (out / MANIFEST).exists() else None
    if before is not None and before != manifest:
        check(out, before, manifest)
    elif before is None and (out.is_file() or not all(map(_is_trace, there))):
        problem = f"expected a new or an empty folder, got {out} which holds something else"
        raise UserError(problem, "choose another --out")
    sweep(out)  # not what other processes write at now
    if before != manifest:
        write_json(out / MANIFEST, to_json(manifest))


def check_same(
    out: Path,
    before: Configuration,
    manifest: Configuration,
    *,
    what: str,
    how: str,
    but: Collection[str] = (),
    prefix: str = "",
) -> None:
    """Raise UserError, which names what differs, unless two manifests are the same.

    Fields named in ``but`` may differ; names are shown without the ``prefix``.
    """
    there, here = ({k: v for k, v in to_json(m).items() if k not in but} for m in (before, manifest))
    if differing := [d.removeprefix(prefix) for d in differences(there, here)]:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        shown = ", ".join(d if len(d) < _LONG else f"{d[:_LONG]}…" for d in differing[:4])
        problem = f"got {out} which holds {what} {how}: {shown}{more}"
        raise UserError(f"expected a new folder or the same {what}, {problem}", "choose another --out")


def own_device(device: str | torch.device) -> torch.device:
    """The device; of several GPUs, if none is named, the one of this process's number on its machine."""
    chosen, local = torch.device(device), os.environ.get("LOCAL_RANK", "")
    if str(chosen) != "cuda" or not local.isdecimal():
        return chosen
    return torch.device("cuda", int(local) % max(1, torch.cuda.device_count()))


def _is_trace(path: Path) -> bool:
    """Whether a path is what a process leaves that is killed as it begins, or has while it does."""
    return is_leftover(path) or path.name.startswith(f".{MANIFEST}.")
