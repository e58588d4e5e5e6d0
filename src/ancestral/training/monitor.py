"""Measures of samples while a model trains, for those whose loss tells nothing of them."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.errors import UserError
from ancestral.measures import Moments, frechet_distance, overlap
from ancestral.measures.classifier import Classifier
from ancestral.model import Model
from ancestral.stages import Stage
from ancestral.training.options import TrainingOptions
from ancestral.training.randomness import derive

_MOST = 1000
"""Samples of a measure, and validation examples that they are measured against."""
_LEAST = 128
"""Validation examples below which a stage that asks for it is not measured: the features of a classifier."""
_BATCH = 100


class Monitor:
    """Samples of a model against validation examples, in the features of a classifier of the data.

    It uses the same random numbers each time, and none of the training's.
    """

    def __init__(self, classifier: Classifier, validation: Batch, seed: int = 0) -> None:
        self.classifier, self.n, self.seed = classifier.eval(), min(_MOST, len(validation)), seed
        if self.n <= classifier.dim:
            problem = f"expected more than {classifier.dim} validation examples to measure samples against"
            raise UserError(f"{problem}, got {len(validation)}", "choose --measure-every 0")
        self.real = self._features(validation.some(self.n).x)
        self.moments = Moments.of(self.real)

    @staticmethod
    def is_wanted(dataset: Dataset, stages: Sequence[Stage], options: TrainingOptions) -> bool:
        """Whether samples are to be measured: if the options say so, or a stage asks where it can be had."""
        if options.measure_every is not None:
            return options.measure_every > 0
        able = dataset.spec.domain == "image" and dataset.spec.classes > 1
        able &= len(dataset.validation) > _LEAST
        return able and options.evaluate_every > 0 and any(stage.measured for stage in stages)

    @torch.no_grad()
    def __call__(self, model: Model) -> dict[str, float]:
        """Fréchet distance, precision, recall and diversity of as many samples as there are examples.

        The last is the standard deviation of their features beside that of the examples'.
        """
        generator = Generator(model.device).manual_seed(derive(self.seed, "monitor"))
        features, classes = [], model.sample_classes
        for start in range(0, self.n, _BATCH):
            places = torch.arange(start, min(start + _BATCH, self.n))
            labels = places % classes if classes else None
            features.append(self._features(model.sample(len(places), labels, generator=generator)))
        fake = torch.cat(features)
        both = overlap(self.real, fake)
        distance = frechet_distance(self.moments, fake)
        return {
            "frechet_distance": distance,
            "precision": both.precision,
            "recall": both.recall,
            "diversity": float((_spread(fake) / _spread(self.real).clamp(min=1e-12)).sqrt()),
        }

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        parts = [self.classifier.features(part.to(self.classifier.device)) for part in x.split(_BATCH)]
        return torch.cat(parts).cpu()


def _spread(features: Tensor) -> Tensor:
    """The variance of features ``(N, D)`` over all dimensions."""
    return features.double().var(0).sum()
