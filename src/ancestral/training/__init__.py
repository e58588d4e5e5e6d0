"""Training: options, the loop, checkpoints, averaging of weights."""

from ancestral.training.begin import train
from ancestral.training.loop import Diverged, Interrupted
from ancestral.training.options import TrainingOptions

__all__ = ["Diverged", "Interrupted", "TrainingOptions", "train"]
