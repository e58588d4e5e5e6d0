"""Deep generative models of the classical taxonomy, on your own data, under one honest yardstick."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancestral.batch import Batch
    from ancestral.data import Dataset, ImageOptions, Preparation, SoundOptions, TableOptions, load_data
    from ancestral.errors import UserError
    from ancestral.evaluation import (
        complete,
        continue_sound,
        convert,
        detokenize,
        evaluate,
        read_code_shards,
        read_codes,
        read_shards,
        reconstruct,
        sample,
        sample_shards,
        tokenize,
        tokenize_shards,
        write_codes,
    )
    from ancestral.media import write_examples
    from ancestral.model import Model
    from ancestral.nn.quantize import FiniteScalarQuantizer, ResidualQuantizer, VectorQuantizer
    from ancestral.recipe import Optimization, Recipe, Updates
    from ancestral.report import write_report
    from ancestral.runs import Run, load
    from ancestral.sampling import Sampling
    from ancestral.spec import Spec
    from ancestral.stages import Loss, Phase, Progress, Stage
    from ancestral.taxonomy import TAXONOMY
    from ancestral.training import TrainingOptions, train

_NAMES = {
    "batch": ("Batch",),
    "data": (
        "Dataset",
        "ImageOptions",
        "Preparation",
        "SoundOptions",
        "TableOptions",
        "load_data",
    ),
    "errors": ("UserError",),
    "evaluation": (
        "complete",
        "convert",
        "continue_sound",
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
    ),
    "media": ("write_examples",),
    "model": ("Model",),
    "nn.quantize": (
        "FiniteScalarQuantizer",
        "ResidualQuantizer",
        "VectorQuantizer",
    ),
    "recipe": (
        "Optimization",
        "Recipe",
        "Updates",
    ),
    "report": ("write_report",),
    "runs": (
        "Run",
        "load",
    ),
    "sampling": ("Sampling",),
    "spec": ("Spec",),
    "stages": (
        "Loss",
        "Phase",
        "Progress",
        "Stage",
    ),
    "taxonomy": ("TAXONOMY",),
    "training": (
        "TrainingOptions",
        "train",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
"""Where each public name lives. They are imported when they are asked for: ``ancestral --help`` need not wait
for torch."""

__all__ = [
    "TAXONOMY",
    "Batch",
    "Dataset",
    "FiniteScalarQuantizer",
    "ImageOptions",
    "Loss",
    "Model",
    "Optimization",
    "Phase",
    "Preparation",
    "Progress",
    "Recipe",
    "ResidualQuantizer",
    "Run",
    "Sampling",
    "SoundOptions",
    "Spec",
    "Stage",
    "TableOptions",
    "TrainingOptions",
    "Updates",
    "UserError",
    "VectorQuantizer",
    "complete",
    "continue_sound",
    "convert",
    "detokenize",
    "evaluate",
    "load",
    "load_data",
    "read_code_shards",
    "read_codes",
    "read_shards",
    "reconstruct",
    "sample",
    "sample_shards",
    "score",
    "tokenize",
    "tokenize_shards",
    "train",
    "write_codes",
    "write_examples",
    "write_report",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ancestral' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ancestral.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
