"""The contract of every model: what the loop, the commands and the tests may ask of it."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from ancestral import hub
from ancestral.configuration import from_json, to_json
from ancestral.errors import UserError, check_type
from ancestral.files import read_json, read_tensors, write_json, write_tensors
from ancestral.recipe import Recipe
from ancestral.spec import Spec


@dataclass(frozen=True)
class Batch:
    """Examples and what is known about them."""

    x: Tensor
    """Integers ``(N, *spec.shape)`` (floats for continuous data)."""
    labels: Tensor | None = None
    """Classes ``(N,)``."""
    context: Tensor | None = None
    """What a conditional model is conditioned on besides the class, ``(N, ...)``."""

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are there, by name."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with ``function`` applied to each tensor."""
        return Batch(**{name: function(tensor) for name, tensor in self.tensors().items()})


@dataclass(frozen=True)
class Loss:
    """What one phase of a step minimizes."""

    total: Tensor
    """The scalar to minimize: a mean over the batch."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars to watch, means over the batch; a name ends in its unit unless that is nats."""


@dataclass(frozen=True)
class Phase:
    """A part of a training step with a loss and an optimizer of its own (a GAN alternates critic and generator)."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    """What the phase's optimizer changes; everything else is frozen meanwhile."""
    every: int = 1
    """The phase takes part in each ``every``-th step (lazy regularisers)."""
    repeat: int = 1
    """Times that the phase is repeated in a step, each with a batch of its own (n-critic)."""


@dataclass(frozen=True)
class Stage:
    """A part of a training with data and a number of steps of its own (tokenizer, then prior)."""

    name: str
    phases: tuple[Phase, ...]
    prepare: Callable[[Batch], Batch] | None = None
    """Transforms the data once, without gradients, before the stage; the result is cached in the run directory."""
    samples: bool = True
    """Whether the model can be sampled while the stage runs."""


class Model(nn.Module, ABC):
    """A deep generative model of discrete data.

    A subclass defines a frozen dataclass ``Config`` whose fields carry docstrings, and ``recipes``, the first of which is the default.
    """

    Config: ClassVar[Any]
    recipes: ClassVar[Mapping[str, Recipe]]
    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """For each field of Config that holds the Config of another model: the models it may be, by name, each with a default."""

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.trained: tuple[str, ...] = ()

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order. The names are those of the recipes."""
        return (Stage("training", (Phase("training", tuple(self.parameters())),)),)

    @abstractmethod
    def loss(self, batch: Batch, phase: str) -> Loss:
        """The loss of a phase on a batch that the stage's ``prepare`` has seen."""

    @abstractmethod
    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw ``n`` examples: integers ``(n, *spec.shape)``.

        Args:
            n: how many.
            labels: classes ``(n,)``; None draws from the model as trained, classes at random where it has them.
            temperature: 1 samples the model; towards 0 each draw becomes the likeliest value.
            generator: source of all randomness, on the model's device.

        Raises:
            UserError: labels that ``check_labels`` refuses.
        """

    @property
    def sample_classes(self) -> int:
        """Number of classes that ``sample`` can be asked for by labels; 0 if it does not draw by class."""
        return 0

    def check_labels(self, labels: Tensor, n: int) -> None:
        """Raise UserError unless ``labels`` are ``n`` classes that ``sample`` draws from."""
        if not self.sample_classes:
            raise UserError(
                f"expected no labels, got some: this {type(self).__name__} does not draw by class",
                "leave labels out, or train a class-conditional model (as vqvae is by default) on data with classes",
            )
        self.spec.check_labels(labels, n)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, the layout of the Hugging Face Hub."""
        folder = Path(folder)
        config = {
            "class": type(self).__name__,
            "config": to_json(self.config),
            "spec": to_json(self.spec),
            "trained": list(self.trained),
        }
        write_tensors(folder / hub.WEIGHTS, self.state_dict())
        write_json(folder / hub.CONFIG, config)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """Load a model of this class from a folder or from the Hub, in evaluation mode, on the CPU.

        Raises:
            UserError: there is no model, it is of another class, or its weights are torn or do not fit its configuration.
        """
        folder = hub.fetch(str(name))
        data = read_json(folder / hub.CONFIG)
        if not isinstance(data, dict) or data.get("class") != cls.__name__:
            got = data.get("class") if isinstance(data, dict) else data
            raise UserError(
                f"expected a {cls.__name__} in {folder}, got {got}", "load it with ancestral.load"
            )
        if not isinstance(data.get("config"), dict) or not isinstance(data.get("spec"), dict):
            raise UserError(
                f"expected config and spec in {folder / hub.CONFIG}, got {', '.join(data)}", "check the file"
            )
        model = cls(
            from_json(cls.Config, data["config"], where="config"), from_json(Spec, data["spec"], where="spec")
        )
        model.trained = tuple(data.get("trained", ()))
        model.load_weights(read_tensors(folder / hub.WEIGHTS), str(folder / hub.WEIGHTS))
        return model.eval()

    def push_to_hub(self, name: str, *, token: str | None = None, private: bool = False) -> str:
        """Upload the model to the repository ``name`` of the Hub; its address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            return hub.push(Path(folder) / "model", name, token=token, private=private)

    def check_trained(self) -> None:
        """Raise UserError if it is known that the last stage has not been trained to its end (``trained`` names those that have)."""
        last = self.stages()[-1].name
        if self.trained and last not in self.trained:
            raise UserError(
                f"expected a model with all stages trained, got one without {last}",
                "give its train command again",
            )

    def load_weights(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Load a full state. Raises UserError, naming the first misfit, if it is another model's or configuration's."""
        own = self.state_dict()
        missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        misfits = sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
        if missing or foreign or misfits:
            name = (misfits or missing or foreign)[0]
            got = tuple(weights[name].shape) if name in weights else "none"
            expected = tuple(own[name].shape) if name in own else "none"
            raise UserError(
                f"expected weights for this configuration, got others in {source}: {name} is {got}, not {expected}",
                "use the configuration that the weights were trained with",
            )
        self.load_state_dict(dict(weights))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters are."""
        return next(self.parameters()).dtype

    def scale(self, x: Tensor) -> Tensor:
        """The model's input for integers ``x``: ``spec.scale`` in the parameters' dtype."""
        return self.spec.scale(x, self.dtype)


class ExactLikelihood(ABC):
    """A model whose likelihood can be computed."""

    @abstractmethod
    def log_prob(self, batch: Batch) -> Tensor:
        """Log p(x) of each example, ``(N,)`` nats, exact."""


class DrawsInOrder:
    """A model whose ``sample`` draws one discrete value after another.

    It also takes ``top_k`` and ``top_p``, which keep the likeliest levels of each draw, and ``progress``, which it calls now and then with
    the share of the draws that is done.
    """


class Completes(DrawsInOrder):
    """A model whose ``sample`` can also take a part of the values as given and draw the rest.

    It takes ``x``, examples ``(n, *spec.shape)``, and ``known``, which of their values stay (boolean, broadcast to ``x``).
    """


def broadcast_known(known: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask of known values, expanded to ``shape``. Raises UserError for one that is not boolean or does not broadcast to it."""
    check_type(known, Tensor, "a boolean mask of known values", "give a tensor")
    if known.dtype != torch.bool:
        raise UserError(
            f"expected a boolean mask of known values, got {known.dtype}", "compare: known = mask > 0"
        )
    try:
        return known.expand(shape)
    except RuntimeError as error:
        raise UserError(
            f"expected a mask of shape {shape}, got {tuple(known.shape)}", "give one value for each of x's"
        ) from error


class LowerBound(ABC):
    """A model whose likelihood can be bounded from below."""

    @abstractmethod
    def elbo(self, batch: Batch) -> Tensor:
        """The evidence lower bound of log p(x) of each example, ``(N,)`` nats, one-sample estimates."""

    @property
    def has_likelihood(self) -> bool:
        """False if this configuration was trained on something else than a likelihood (a squared error)."""
        return True

    @abstractmethod
    def importance_bound(self, batch: Batch, k: int) -> Tensor:
        """The k-sample importance-weighted bound (Burda et al., 2015), ``(N,)`` nats; at least the ELBO in expectation."""


class Reconstructs(ABC):
    """A model that compresses an example to something smaller and gets an approximation back."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """The model's version of ``x``: integers of the same shape."""


class ContinuousLatents(Reconstructs):
    """A model with a vector of real numbers behind each example, standard normal a priori."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """The mean latent vector of each example, ``(N, latents)``."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Integers ``(N, *spec.shape)`` decoded from latent vectors ``(N, latents)``."""


class Tokenizer(Reconstructs):
    """A model that turns examples into maps of code indices and back."""

    @abstractmethod
    def tokenize(self, x: Tensor) -> tuple[Tensor, ...]:
        """One code map ``(N, M, h, w)`` of int64 indices for each level, coarse to fine."""

    @abstractmethod
    def detokenize(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Integers ``(N, *spec.shape)`` decoded from code maps; inverse to ``tokenize`` up to the model's loss."""

    @abstractmethod
    def code_specs(self) -> tuple[Spec, ...]:
        """What each code map is: its shape and codebook size."""

    def check_codes(self, codes: Sequence[Tensor]) -> None:
        """Raise UserError unless ``codes`` are a map of this model for each level, of as many examples each."""
        specs = self.code_specs()
        check_type(
            codes, tuple | list, "a sequence of code maps", "give what tokenize gave: a map for each level"
        )
        if len(codes) != len(specs):
            plural = "s" * (len(specs) > 1)
            raise UserError(
                f"expected {len(specs)} code map{plural} (one for each level), got {len(codes)}",
                "give what tokenize gave",
            )
        for spec, level in zip(specs, codes, strict=True):
            try:
                spec.check(level)
            except UserError as error:
                raise UserError(
                    f"{error.problem} as codes", "give what tokenize gave, of this model"
                ) from None
            if not len(level) or len(level) != len(codes[0]):
                got = ", ".join(str(len(c)) for c in codes)
                raise UserError(
                    f"expected as many code maps on each level, at least 1, got {got}",
                    "give what tokenize gave",
                )

    @abstractmethod
    def rates(self, codes: tuple[Tensor, ...], labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """-log p(codes) of each level under its learned prior, given the coarser levels, ``(N,)`` nats each."""

    @abstractmethod
    def distortion(self, x: Tensor, codes: tuple[Tensor, ...]) -> Tensor:
        """-log p(x|codes), ``(N,)`` nats."""

    @abstractmethod
    def code_vectors(self, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The features ``(N, D, h, w)`` that the codes of each level stand for."""
