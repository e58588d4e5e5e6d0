"""Evaluation: likelihood, reconstruction, codes, samples."""

from ancestral.evaluation.code_files import read_codes, write_codes
from ancestral.evaluation.continuation import continue_sound
from ancestral.evaluation.conversion import Conversion, convert
from ancestral.evaluation.evaluation import evaluate
from ancestral.evaluation.reconstruction import reconstruct
from ancestral.evaluation.rejection import Gate
from ancestral.evaluation.sampling import complete, sample
from ancestral.evaluation.scores import Scores, score, write_scores
from ancestral.evaluation.sharded_codes import CodeShards, read_code_shards, tokenize_shards
from ancestral.evaluation.sharded_samples import Shards, read_shards, sample_shards
from ancestral.evaluation.tokens import detokenize, tokenize
from ancestral.figures import Codebook, Evaluation, Figure

__all__ = [
    "CodeShards",
    "Codebook",
    "Conversion",
    "Evaluation",
    "Figure",
    "Gate",
    "Scores",
    "Shards",
    "complete",
    "continue_sound",
    "convert",
    "detokenize",
    "evaluate",
    "read_code_shards",
    "read_codes",
    "read_shards",
    "reconstruct",
    "sample",
    "sample_shards",
    "score",
    "tokenize",
    "tokenize_shards",
    "write_codes",
    "write_scores",
]
