"""From the name of a source of sounds to a data set, and from one file to what a model takes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.data import sound_store
from ancestral.data.dataset import Dataset
from ancestral.data.folder import SOUNDS, sound_folder
from ancestral.data.pictures import SPLITS, TEST, VALIDATION
from ancestral.data.preparation import SoundOptions
from ancestral.data.recordings import Recordings, opened
from ancestral.data.sounds import Sounds
from ancestral.data.source import UnusableError
from ancestral.data.tones import TONES, tones
from ancestral.data.voices import ASTERISK, GCIN_VOICE, asterisk, gcin_voice
from ancestral.errors import UserError
from ancestral.memory import check_room
from ancestral.spec import Spec

NAMED_SOUNDS = (TONES, ASTERISK, GCIN_VOICE)
"""Sources that have a name; ./tones is a folder."""


def load_sounds(source: str, options: SoundOptions, place: Path | None, room: int) -> Dataset[Sounds]:
    """The data set of a source of sounds.

    Args:
        source: ``tones``, ``asterisk``, ``asterisk:VOICE``, ``gcin-voice`` or the path of a folder.
        options: how recordings become integers.
        place: the folder for sounds that do not fit into memory.
        room: bytes of them that do.

    Raises:
        UserError: there is no such source, it holds no usable sounds, or a split would be empty.
    """
    recordings = find_sounds(source)
    stored = sound_store.load(recordings, options, place, room)
    found = stored.found
    if recordings.prompts is not None:
        way = "of the prompts, by a hash of what each says"
    else:
        way = "of train, in the order of a hash of the samples"
    made = {"train": "what the other splits leave"}
    for name, code, share in (("validation", VALIDATION, options.validation), ("test", TEST, options.test)):
        made[name] = "the source's own" if recordings.has(code) else f"{share:.4g} {way}"
    return Dataset(
        source=recordings.source,
        spec=options.spec(len(recordings.classes)),
        train=stored.splits["train"],
        validation=stored.splits["validation"],
        test=stored.splits["test"],
        classes=recordings.classes,
        fingerprint=stored.fingerprint,
        skipped=tuple(f"{recordings.names[i]}: {why}" for i, why in sorted(found.skipped.items()))
        + recordings.notes,
        preparation=options,
        made=made,
        duplicates=found.duplicates,
        names={name: tuple(np.array(recordings.names, object)[found.rows[name]]) for name in SPLITS},
    )


def find_sounds(source: str) -> Recordings:
    """The recordings of a source, not yet read. Raises UserError if there is none of this name."""
    name, colon, rest = source.partition(":")
    if name == ASTERISK:
        return asterisk(rest if colon else None)
    if source in (TONES, GCIN_VOICE):
        return tones() if source == TONES else gcin_voice()
    if name in (TONES, GCIN_VOICE):
        raise UserError(f"expected {name} without more words, got {source}", f"write {name}")
    path = Path(source).expanduser()
    if path.is_file():
        problem = f"expected a folder of sounds, got the file {source}"
        raise UserError(problem, f"give the folder that it is in: {path.parent}")
    if not path.is_dir():
        raise UserError(f"there is no folder {source} (looked for {path.absolute()})", "check the path")
    return sound_folder(path)


def load_recordings(folder: str | Path, options: SoundOptions) -> tuple[Sounds, tuple[str, ...]]:
    """All sounds of a folder as they are, in no splits, equal ones among them; and the names of the classes.

    Raises:
        UserError: there is no such folder, it holds no usable sounds, or more than the memory does.
    """
    recordings, spec, found = sound_folder(Path(folder).expanduser()), options.spec(), []
    rows, size, reason = [], 0, ""
    for i in range(len(recordings)):
        try:
            levels = sound_store.levels_of(recordings.read(i, options.rate), options, spec)
        except UnusableError as error:
            reason = reason or f"{recordings.names[i]}: {error}"
            continue
        size += 2 * levels.nbytes
        check_room(size, f"the sounds of {folder}", "give fewer")
        found.append(levels)
        rows.append(i)
    if not rows:
        problem = f"none of the {len(recordings)} sounds of {recordings.source} can be read ({reason})"
        raise UserError(problem, "check the files")
    labels = recordings.labels_of(np.array(rows, np.int64))
    sounds = Sounds(
        torch.from_numpy(np.concatenate(found))[:, None],
        torch.tensor([len(levels) for levels in found]),
        None if labels is None else torch.from_numpy(labels),
        silence=options.levels // 2,
    )
    return sounds, recordings.classes


def load_sound(path: str | Path, spec: Spec) -> tuple[Tensor, str]:
    """One sound, encoded as a spec says, ``(1, T)``; and what was done to it, in words, if anything.

    Raises:
        UserError: there is no such file, it cannot be read as a sound, or the spec is not of sounds.
    """
    path, options = Path(path).expanduser(), SoundOptions().fitted(spec)
    if not path.is_file():
        raise UserError(f"expected the file of a sound ({' '.join(SOUNDS)}), got {path}", "check the path")
    try:
        amplitudes, rate, channels = opened(path, options.rate)
    except UnusableError as error:
        raise UserError(f"expected a sound in {path}, got: {error}", "give another file") from None
    mixed = [f"{channels} channels made one"] if channels > 1 else []
    resampled = [f"{rate:,} Hz resampled to {options.rate:,} Hz"] if rate != options.rate else []
    x = torch.from_numpy(sound_store.levels_of(amplitudes, options, spec))[None]
    return x, ", ".join(mixed + resampled)
