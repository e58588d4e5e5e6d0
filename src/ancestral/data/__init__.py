"""Data sets: integers from digits, Fashion-MNIST, a folder of one's own images or the Hugging Face Hub."""

from ancestral.data.augment import augment
from ancestral.data.dataset import Dataset, Split
from ancestral.data.load import load_data
from ancestral.data.options import ImageOptions

__all__ = ["Dataset", "ImageOptions", "Split", "augment", "load_data"]
