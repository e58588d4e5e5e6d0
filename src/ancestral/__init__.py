"""Deep generative models of the classical taxonomy, on your own data, under one honest yardstick."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancestral.data import ImageOptions, load_data
    from ancestral.errors import UserError
    from ancestral.evaluation import (
        complete,
        detokenize,
        evaluate,
        read_codes,
        reconstruct,
        sample,
        tokenize,
        write_codes,
        write_images,
    )
    from ancestral.model import Batch, Model
    from ancestral.nn.quantize import FiniteScalarQuantizer, ResidualQuantizer, VectorQuantizer
    from ancestral.recipe import Optimization
    from ancestral.report import write_report
    from ancestral.runs import Run, load
    from ancestral.spec import Spec
    from ancestral.taxonomy import TAXONOMY
    from ancestral.training import TrainingOptions, train

_HOMES = {
    "Batch": "model", "FiniteScalarQuantizer": "nn.quantize", "ImageOptions": "data", "Model": "model", "Optimization": "recipe",
    "ResidualQuantizer": "nn.quantize", "Run": "runs", "Spec": "spec", "TAXONOMY": "taxonomy", "TrainingOptions": "training",
    "UserError": "errors", "VectorQuantizer": "nn.quantize", "complete": "evaluation", "detokenize": "evaluation",
    "evaluate": "evaluation", "load": "runs", "load_data": "data", "read_codes": "evaluation", "reconstruct": "evaluation",
    "sample": "evaluation", "tokenize": "evaluation", "train": "training", "write_codes": "evaluation", "write_images": "evaluation",
    "write_report": "report",
}  # fmt: skip
"""Where each public name lives. They are imported when they are asked for, so that ``ancestral --help`` need not wait for torch."""

__all__ = [
    "TAXONOMY",
    "Batch",
    "FiniteScalarQuantizer",
    "ImageOptions",
    "Model",
    "Optimization",
    "ResidualQuantizer",
    "Run",
    "Spec",
    "TrainingOptions",
    "UserError",
    "VectorQuantizer",
    "complete",
    "detokenize",
    "evaluate",
    "load",
    "load_data",
    "read_codes",
    "reconstruct",
    "sample",
    "tokenize",
    "train",
    "write_codes",
    "write_images",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ancestral' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ancestral.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
