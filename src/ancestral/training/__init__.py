"""Training: options, the loop, checkpoints, averaging of weights."""

from ancestral.training.loop import Diverged, Interrupted
from ancestral.training.options import TrainingOptions
from ancestral.training.train import train

__all__ = ["Diverged", "Interrupted", "TrainingOptions", "train"]
