"""Training: options, the loop, checkpoints, averaging of weights."""

from ancestral.errors import Interrupted
from ancestral.training.begin import Role, classifier_of, train
from ancestral.training.options import TrainingOptions
from ancestral.training.work import Diverged

__all__ = ["Diverged", "Interrupted", "Role", "TrainingOptions", "classifier_of", "train"]
