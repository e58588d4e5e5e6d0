"""Real voices out of packages of Debian: prompts of a telephone exchange, and the syllables of Mandarin.

What a recording says is known by its name, and alike in every voice: splits are by what is said. The packages
have licenses of their own (``/usr/share/doc/PACKAGE/copyright``), which whoever passes recordings on keeps.
"""

import os
from pathlib import Path
from typing import Final

import numpy as np

from ancestral.data.folder import files, key_of
from ancestral.data.pictures import TRAIN
from ancestral.data.recordings import Recordings, check_readers, read_sound
from ancestral.errors import UserError, nearest

ASTERISK: Final = "asterisk"
GCIN_VOICE: Final = "gcin-voice"
_VOICES: Final = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June"}
"""Folder of each voice of asterisk; en and es are one person."""
_NO_SPEECH: Final = {"beep", "beeperr", "ascending-2tone", "descending-2tone"}
_SPEAKERS: Final = ("3", "5")
_INITIALS: Final = tuple("ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙ")


def asterisk(voice: str | None = None) -> Recordings:
    """The prompts of the packages asterisk-core-sounds-{en,es,fr}-wav that are installed, 8 kHz, 16 bits.

    Classes are the voices, if there are several. Silence, tones and beeps are left out.

    Args:
        voice: ``en``, ``es`` or ``fr`` alone; None takes all that are installed.

    Raises:
        UserError: there is no such voice, none is installed, or sounds cannot be read.
    """
    if voice is not None and voice not in _VOICES:
        problem = f"expected a voice of {ASTERISK}, got {voice!r}"
        raise UserError(problem, nearest(voice, _VOICES))
    root = _share() / "asterisk" / "sounds"
    wanted = [voice] if voice is not None else list(_VOICES)
    there = [name for name in wanted if (root / _VOICES[name]).is_dir()]
    if not there:
        raise _absent(f"the prompts of {ASTERISK}", root, [f"asterisk-core-sounds-{v}-wav" for v in wanted])
    check_readers()
    found = [(name, prompt) for name in there for prompt in _prompts(root / _VOICES[name])]
    paths = tuple(f"{_VOICES[name]}/{prompt}.wav" for name, prompt in found)
    several = len(there) > 1
    return Recordings(
        source=ASTERISK if voice is None else f"{ASTERISK}:{voice}",
        names=tuple(f"{name}/{prompt}" for name, prompt in found),
        given=np.full(len(found), TRAIN, np.int8),
        key=key_of(root, paths),
        labels=np.array([there.index(name) for name, _ in found], np.int64) if several else None,
        classes=tuple(there) if several else (),
        read=lambda i, rate: read_sound(root / paths[i], rate),
        prompts=tuple(prompt for _, prompt in found),
    )


def _prompts(folder: Path) -> list[str]:
    """What is said in the files of a voice: their paths without an ending."""
    names = (file.with_suffix("") for file in files(folder, (".wav",)))
    return sorted(n.as_posix() for n in names if n.parts[0] != "silence" and n.name not in _NO_SPEECH)


def gcin_voice() -> Recordings:
    """The syllables of Mandarin by two speakers, of the package gcin-voice, 44.1 kHz.

    A recording is called after its syllable with its tone, and its speaker: ``ㄊㄢ3/5``. Those are left out
    that one speaker alone has.

    Raises:
        UserError: it is not installed, or sounds cannot be read.
    """
    root = _share() / "gcin-voice" / "ogg"
    if not root.is_dir():
        raise _absent("the syllables of gcin-voice", root, [GCIN_VOICE])
    check_readers()
    all_ = {file.with_suffix("").as_posix() for file in files(root, (".ogg",))}
    syllables = sorted({name.partition("/")[0] for name in all_})
    both = [s for s in syllables if all(f"{s}/{speaker}" in all_ for speaker in _SPEAKERS)]
    names = tuple(f"{syllable}/{speaker}" for syllable in both for speaker in _SPEAKERS)
    paths = tuple(f"{name}.ogg" for name in names)
    return Recordings(
        source=GCIN_VOICE,
        names=names,
        given=np.full(len(names), TRAIN, np.int8),
        key=key_of(root, paths),
        labels=np.arange(len(names), dtype=np.int64) % len(_SPEAKERS),
        classes=_SPEAKERS,
        read=lambda i, rate: read_sound(root / paths[i], rate),
        prompts=tuple(name.partition("/")[0] for name in names),
    )


def syllable_of(name: str) -> tuple[str, str, str]:
    """The initial, the final and the tone of a recording of gcin-voice, by its name.

    The tones are 1 to 4, and 5 is the neutral one, which the package calls 1 where it leaves the first one
    out. Syllables may lack an initial, or a final of their own.

    >>> syllable_of("ㄊㄢ3/5"), syllable_of("ㄢ/3")
    (('ㄊ', 'ㄢ', '3'), ('', 'ㄢ', '1'))
    """
    syllable = name.partition("/")[0]
    sounds = syllable.rstrip("1234")
    tone = {"": "1", "1": "5"}.get(syllable[len(sounds) :], syllable[-1])
    initial = sounds[:1] if sounds[:1] in _INITIALS else ""
    return initial, sounds[len(initial) :], tone


def _share() -> Path:
    """Where packages put what all machines share."""
    return Path(os.environ.get("ANCESTRAL_SHARE") or "/usr/share")


def _absent(what: str, root: Path, packages: list[str]) -> UserError:
    return UserError(f"expected {what} in {root}, got nothing there", f"apt-get install {' '.join(packages)}")
