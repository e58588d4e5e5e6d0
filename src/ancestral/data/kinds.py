"""Which kind of data a source holds, by its name, and of a folder by the names of its files."""

from pathlib import Path

from ancestral.data.folder import IMAGES, SOUNDS, files
from ancestral.data.preparation import TABLE, ImageOptions, Preparation, SoundOptions, TableOptions
from ancestral.data.tones import TONES
from ancestral.data.voices import ASTERISK, GCIN_VOICE


def preparation_of(source: str) -> type[Preparation]:
    """The options that a source takes. A folder with an image is one of images, whatever else it holds.

    >>> preparation_of("table:measurements.csv").kind, preparation_of("photos/").kind
    ('table', 'images')
    >>> preparation_of("asterisk:en").kind
    'sound'
    """
    if source.startswith(TABLE):
        return TableOptions
    if source.partition(":")[0] in (TONES, ASTERISK, GCIN_VOICE):
        return SoundOptions
    path = Path(source).expanduser()
    sounds = _holds_sounds_alone(path) if source and path.is_dir() else source.lower().endswith(SOUNDS)
    return SoundOptions if sounds else ImageOptions


def _holds_sounds_alone(folder: Path) -> bool:
    """Whether there are sounds and no image, which is known at the first one."""
    sounds = False
    for file in files(folder, IMAGES + SOUNDS):
        if file.name.lower().endswith(IMAGES):
            return False
        sounds = True
    return sounds
