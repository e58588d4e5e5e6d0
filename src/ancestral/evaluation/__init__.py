"""Evaluation: likelihood, reconstruction, codes, samples."""

from ancestral.evaluation.evaluation import evaluate
from ancestral.evaluation.reconstruction import reconstruct
from ancestral.evaluation.sampling import complete, sample
from ancestral.evaluation.tokens import detokenize, read_codes, tokenize, write_codes
from ancestral.figures import Codebook, Evaluation, Figure

__all__ = [
    "Codebook",
    "Evaluation",
    "Figure",
    "complete",
    "detokenize",
    "evaluate",
    "read_codes",
    "reconstruct",
    "sample",
    "tokenize",
    "write_codes",
]
