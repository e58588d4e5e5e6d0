"""Data sets: of images (digits, Fashion-MNIST, a folder, the Hugging Face Hub), sounds, or a table."""

from ancestral.data.augment import augment
from ancestral.data.dataset import Dataset
from ancestral.data.kinds import preparation_of
from ancestral.data.load import load_data
from ancestral.data.load_sounds import load_recordings, load_sound
from ancestral.data.preparation import (
    PREPARATIONS,
    ImageOptions,
    Preparation,
    SoundOptions,
    TableOptions,
)
from ancestral.data.sounds import Crops, Sounds

__all__ = [
    "PREPARATIONS",
    "Crops",
    "Dataset",
    "ImageOptions",
    "Preparation",
    "SoundOptions",
    "Sounds",
    "TableOptions",
    "augment",
    "load_data",
    "load_recordings",
    "load_sound",
    "preparation_of",
]
