"""Evaluation: likelihood, reconstruction, codes, samples."""

from ancestral.evaluation.bulk import Shards, read_shards, sample_shards
from ancestral.evaluation.bulk_tokens import tokenize_shards
from ancestral.evaluation.code_shards import CodeShards, read_code_shards
from ancestral.evaluation.evaluation import evaluate
from ancestral.evaluation.reconstruction import reconstruct
from ancestral.evaluation.rejection import Gate
from ancestral.evaluation.sampling import complete, sample
from ancestral.evaluation.tokens import detokenize, read_codes, tokenize, write_codes
from ancestral.figures import Codebook, Evaluation, Figure

__all__ = [
    "CodeShards",
    "Codebook",
    "Evaluation",
    "Figure",
    "Gate",
    "Shards",
    "complete",
    "detokenize",
    "evaluate",
    "read_code_shards",
    "read_codes",
    "read_shards",
    "reconstruct",
    "sample",
    "sample_shards",
    "tokenize",
    "tokenize_shards",
    "write_codes",
]
