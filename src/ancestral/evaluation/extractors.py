"""The networks whose features stand for images, each with its name and the checksum of its weights."""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ancestral.data import Dataset
from ancestral.errors import UserError, nearest
from ancestral.evaluation.batches import batches
from ancestral.measures.classifier import Classifier
from ancestral.measures.imagenet import ImageNet
from ancestral.measures.inception import Inception
from ancestral.runs import Run, load
from ancestral.spec import Spec
from ancestral.training import classifier_of
from ancestral.weights import state_checksum

Features = str | Path | nn.Module
"""``classifier``, ``imagenet``, a file of the Inception network's weights, the run of a classifier, or a
module that takes pixels in 0..1."""

NAMES = ("classifier", "imagenet")


@dataclass(frozen=True)
class Extractor:
    """Images of a spec to features, by a network with a name."""

    name: str
    weights: str
    """SHA-256 of the network's state."""
    network: nn.Module
    spec: Spec
    """The images that it is given."""
    dim: int
    """D, how many features there are."""

    @classmethod
    def find(
        cls,
        features: Features,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        *,
        progress: bool = False,
    ) -> "Extractor":
        """The extractor that is meant, for the examples of a data set.

        Args:
            features: see ``Features``; ``classifier`` is the data set's own, which is trained if need be.
            dataset: what the images are like.
            device: where to compute.
            progress: show the training of a classifier.

        Raises:
            UserError: there is no such network, it is for other images, or the data are no images.
        """
        spec = dataset.spec
        if spec.domain != "image":
            problem = f"expected images to measure samples of, got {spec.domain} {spec.shape}"
            raise UserError(problem, "compare features of your own with ancestral.measures")
        network, name = _network(features, dataset, device, progress)
        if isinstance(network, Classifier):
            own, its = ((s.shape, s.levels) for s in (spec, network.spec))
            if own != its:
                wanted, got = (f"images {shape} of {levels} levels" for shape, levels in (own, its))
                raise UserError(
                    f"expected a classifier of {wanted}, got one of {got}",
                    "choose --features classifier, or imagenet",
                )
        if isinstance(network, ImageNet):
            height, width = network.size(*spec.shape[1:])
            name += f", resized to {height}x{width}" if (height, width) != spec.shape[1:] else ""
        network = network.eval().to(device)
        with torch.no_grad():
            dim = int(cls(name, "", network, spec, 0)(torch.zeros(2, *spec.shape, dtype=spec.dtype)).shape[1])
        return cls(name, _checksum(network), network, spec, dim)

    @property
    def is_inception(self) -> bool:
        """Whether it is the network of the published FID, with its weights."""
        return isinstance(self.network, Inception) and bool(self.network.weights_sha256)

    def classifier_of(self, dataset: Dataset) -> Classifier | None:
        """The network, if it tells the classes of a data set apart."""
        network = self.network
        if not isinstance(network, Classifier) or network.spec.classes != dataset.spec.classes:
            return None
        return network if network.classes == dataset.classes else None

    def of_scaled(self, y: Tensor) -> Tensor:
        """Features ``(N, D)`` of images as the spec scales them, cut off at -1 and 1, with gradients."""
        if isinstance(self.network, Classifier):
            return self.network.features_of_scaled(y.to(self.network.dtype))
        found: Tensor = self.network(((y + 1) / 2).clamp(0, 1))
        return found

    @torch.no_grad()
    def __call__(self, x: Tensor, what: str = "features", *, show: bool = False) -> Tensor:
        """Features of images ``(N, *spec.shape)``, batch after batch: ``(N, D)`` on the CPU.

        Raises UserError for features of another shape.
        """
        device = next((t.device for t in self.network.state_dict().values()), torch.device("cpu"))
        parts = []
        for part in batches(len(x), what, device=device, show=show):
            images = x[part].to(device)
            found = self.of_scaled(self.spec.scale(images, torch.float32))
            if found.ndim != 2 or len(found) != len(images):
                problem = f"expected features ({len(images)}, D) of {self.name}, got {tuple(found.shape)}"
                raise UserError(problem, "let the module return a row for each image")
            parts.append(found.float().cpu())
        return torch.cat(parts)


def _checksum(network: nn.Module) -> str:
    """SHA-256 of the network's state and, of a module of one's own, of what it is made of."""
    state = state_checksum(network)
    known = isinstance(network, Classifier | ImageNet | Inception)
    return state if known else hashlib.sha256(f"{state} {network!r}".encode()).hexdigest()


def _network(
    features: Features, dataset: Dataset, device: torch.device | str, progress: bool
) -> tuple[nn.Module, str]:
    """The network and its name."""
    if isinstance(features, nn.Module):
        return copy.deepcopy(features), f"{type(features).__name__} of your own"
    if features == "classifier":
        found = classifier_of(dataset, "features", device=device, progress=progress)
        return found, f"classifier of {dataset.source}"
    if features == "imagenet":
        return ImageNet(), "EfficientNet-lite0 of ImageNet"
    path = Path(features)
    if path.is_file():
        return Inception.load(path), "Inception, resized to 299x299"
    if not path.is_dir():
        problem = f"expected features {', '.join(NAMES)}, a file of Inception's weights or a classifier's run"
        raise UserError(f"{problem}, got {features}", nearest(str(features), NAMES))
    model = load(path)
    if not isinstance(model, Classifier):
        problem = f"expected the run of a classifier for features, got one of {type(model).__name__}"
        raise UserError(problem, "train one: ancestral train classifier")
    run = Run.open(path) if (path / "run.json").is_file() else None
    return model, f"classifier of {run.manifest['data']['source']}" if run else "a classifier"
