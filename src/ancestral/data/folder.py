"""A folder of one's own images or sounds."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ancestral.data.pictures import FORMATS, SPLIT_NAMES, TEST, TRAIN, VALIDATION, Pictures
from ancestral.data.recordings import Recordings, check_readers, read_sound
from ancestral.data.source import Source
from ancestral.errors import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".tif", ".gif")
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au")
"""Endings of the files that are looked for."""


def folder(path: Path, *, or_sounds: bool = False) -> Pictures:
    """The images under a folder, as ``listed`` has them. Raises UserError like it.

    With ``or_sounds`` that says that there are no sounds either: where they would have been taken.
    """
    found = listed(path, IMAGES, "images", SOUNDS if or_sounds else ())
    Image.init()  # before threads do
    return Pictures(
        **vars(found),
        read=lambda i: Image.open(os.path.join(path, found.names[i]), formats=FORMATS),  # noqa: PTH118 - of many files
    )


def sound_folder(path: Path) -> Recordings:
    """The sounds under a folder, as ``listed`` has them.

    Raises:
        UserError: like ``listed``, or sounds cannot be read without a package that is missing.
    """
    found = listed(path, SOUNDS, "sounds")
    check_readers()
    return Recordings(
        **vars(found),
        read=lambda i, rate: read_sound(os.path.join(path, found.names[i]), rate),  # noqa: PTH118 - of many files
    )


def listed(path: Path, suffixes: tuple[str, ...], what: str, sounds: tuple[str, ...] = ()) -> Source:
    """The files under a folder with certain endings, hidden ones left out, in the order of their paths.

    Names are as Python has them: bytes that are not UTF-8 are surrogates.

    Folders ``train`` and ``test`` or ``val``/``validation`` at the top are splits. Below that, each folder is
    a class if all files are in folders and there are at least two; otherwise there are no labels.

    Args:
        path: the folder.
        suffixes: the endings.
        what: what such files are.
        sounds: endings of sounds, of which there are none either.

    Raises:
        UserError: there are none, the folder cannot be read, or it seems to have splits and other things
            beside them.
    """
    notes: list[str] = []
    found = sorted(files(path, suffixes, notes), key=lambda file: file.as_posix())
    if not found:
        looked = f"looked for {' '.join(suffixes + sounds)}" + "".join(f"; {note}" for note in notes[:3])
        either = " or sounds" if sounds else ""
        raise UserError(f"folder {path} holds no {what}{either} ({looked})", "check the path")
    splits = _splits(path, found, what)
    given = np.array(
        [SPLIT_NAMES[file.parts[0]] for file in found] if splits else [TRAIN] * len(found), np.int8
    )
    inner = [file.parts[1:] if splits else file.parts for file in found]
    classes = tuple(sorted({parts[0] for parts in inner if len(parts) > 1}))
    labeled = len(classes) > 1 and all(len(parts) > 1 for parts in inner)
    position = {name: i for i, name in enumerate(classes)}
    names = tuple(file.as_posix() for file in found)
    return Source(
        source=str(path.resolve()),  # a run is evaluated from anywhere
        names=names,
        given=given,
        key=key_of(path, names),
        labels=np.array([position[parts[0]] for parts in inner], np.int64) if labeled else None,
        classes=classes if labeled else (),
        notes=tuple(notes),
    )


def files(root: Path, suffixes: tuple[str, ...], notes: list[str] | None = None) -> Iterator[Path]:
    """Paths of files relative to the root. Links are followed, but no folder is entered twice.

    What cannot be entered, or has the name of such a file and is none, is noted as "name: reason".
    """
    notes = [] if notes is None else notes

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        notes.append(f"{name}/: a folder that cannot be read ({error.strerror})")

    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=unreadable):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(folder).relative_to(root)
        for name in names:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                file = below / name
                if _is_special(os.path.join(folder, name)):  # noqa: PTH118 - of many files
                    notes.append(f"{file.as_posix()}: no file, but a pipe, a socket or a device")
                else:
                    yield file


def _is_special(path: str) -> bool:
    """Whether there is something other than a file, which reading would wait for."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:  # a broken link: reading will say so
        return False


def _splits(root: Path, files: list[Path], what: str) -> bool:
    """Whether the folders at the top are splits."""
    top = {file.parts[0] if len(file.parts) > 1 else "" for file in files}
    codes = {SPLIT_NAMES[name] for name in top & SPLIT_NAMES.keys()}
    if TRAIN not in codes:
        return False
    others = sorted(top - SPLIT_NAMES.keys())
    if others and codes & {VALIDATION, TEST}:
        beside = f"{others[0]}/" if others[0] else what
        found = ", ".join(f"{name}/" for name in sorted(top & SPLIT_NAMES.keys()))
        raise UserError(
            f"folder {root} has splits ({found}) and {beside} beside them",
            "move what is no split to another folder",
        )
    return not others


def key_of(root: Path, names: tuple[str, ...]) -> str:
    """Changes with any path, size or time of change."""
    digest = hashlib.sha256()
    for name in names:
        try:
            status = (root / name).stat()
        except OSError:  # a broken link: it will be skipped
            digest.update(f"{name}\0\0".encode(errors="surrogateescape"))
        else:
            digest.update(
                f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape")
            )
    return digest.hexdigest()
