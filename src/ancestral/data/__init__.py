"""Data sets: digits, Fashion-MNIST, a folder of one's own images, the Hugging Face Hub, or a table."""

from ancestral.data.augment import augment
from ancestral.data.dataset import Dataset
from ancestral.data.load import load_data
from ancestral.data.preparation import (
    PREPARATIONS,
    ImageOptions,
    Preparation,
    TableOptions,
    preparation_of,
)

__all__ = [
    "PREPARATIONS",
    "Dataset",
    "ImageOptions",
    "Preparation",
    "TableOptions",
    "augment",
    "load_data",
    "preparation_of",
]
