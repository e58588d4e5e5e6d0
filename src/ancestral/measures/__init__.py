"""Measures of sample quality: functions of features ``(N, D)``, whichever network or formula gave them."""

from ancestral.measures.copies import Copying, auroc, copying, nearest
from ancestral.measures.frechet import Moments, frechet_distance
from ancestral.measures.intervals import Interval, bootstrap, subsampled, subsampled_all
from ancestral.measures.kernel import kernel_distance
from ancestral.measures.marginals import kolmogorov_smirnov
from ancestral.measures.neighbors import Overlap, overlap

__all__ = [
    "Copying",
    "Interval",
    "Moments",
    "Overlap",
    "auroc",
    "bootstrap",
    "copying",
    "frechet_distance",
    "kernel_distance",
    "kolmogorov_smirnov",
    "nearest",
    "overlap",
    "subsampled",
    "subsampled_all",
]
