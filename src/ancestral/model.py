"""The contract of every model: what the loop, the commands and the tests may ask of it."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Generator, Tensor, nn

from ancestral import hub
from ancestral.batch import Batch
from ancestral.configuration import Configuration, Positive, Range, from_json, to_json
from ancestral.errors import UserError, check_at_least
from ancestral.files import Damaged, checksum, read_json, read_tensors, write_json, write_tensors
from ancestral.recipe import Recipe
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage

LikelihoodKind = Literal["exact", "bound", "none"]


@dataclass(frozen=True, kw_only=True)
class Sampling(Configuration):
    """Options of sampling. A model says by ``sampling_options`` which it takes.

    >>> Sampling(top_p=1.5)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected top_p in (0, 1], got 1.5; choose a value in that range
    """

    temperature: Positive = 1.0
    """1 samples the model; lower values give likelier, less diverse samples."""
    top_k: Annotated[int | None, Range(least=1)] = None
    """Draw from the k likeliest levels of each value (models that draw values in order)."""
    top_p: Annotated[float | None, Range(above=0, most=1)] = None
    """Draw from the likeliest levels that together reach this probability (the same models)."""
    truncation: Annotated[float | None, Range(least=0)] = None
    """Keep the latents this near to their mean (models that say so)."""


class Model(nn.Module, ABC):
    """A deep generative model.

    A subclass defines a frozen dataclass ``Config(Model.Config)`` whose fields carry docstrings, and
    ``recipes``, the first of which is the default.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Configuration):
        """Options of a model."""

        model: ClassVar[type["Model"]]
        """The class that these are the options of."""

        def build(self, spec: Spec) -> Any:
            """The model of this configuration for data of ``spec``."""
            return self.model(self, spec)

    recipes: ClassVar[Mapping[str, Recipe]]
    choices: ClassVar[Mapping[str, tuple[Configuration, ...]]] = {}
    """For each field of Config that holds one of several configurations: those it may be, as the command line
    starts from them."""
    sampling_options: ClassVar[frozenset[str]] = frozenset({"temperature"})
    """The fields of ``Sampling`` that the model takes."""
    takes_contexts: ClassVar[bool] = False
    """Whether the model can be conditioned on contexts."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(config := vars(cls).get("Config"), type):
            config.model = cls  # type: ignore[attr-defined]

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__()
        if spec.contexts and not self.takes_contexts:
            problem = f"expected data without contexts for {type(self).__name__}, got {len(spec.contexts)}"
            raise UserError(problem, "use an autoregressive model, which can be conditioned on them")
        self.config = config
        self.spec = spec
        self.trained: tuple[str, ...] = ()
        """The stages that were trained to their end; empty for a model that was never saved by a training."""

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order. The names are those of the recipes."""
        return (Stage("training", (Phase("training", (self,)),)),)

    @abstractmethod
    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """The loss of a phase on a batch that the stage's ``prepare`` and ``transform`` have seen."""

    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        *,
        contexts: Sequence[Tensor] = (),
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        truncation: float | None = None,
        generator: Generator | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Draw ``n`` examples ``(n, *spec.shape)``, of the spec's dtype.

        Args:
            n: how many.
            labels: classes ``(n,)``; None draws from the model as trained, at random among its classes.
            contexts: what the model is conditioned on, ``(n, *context.shape)`` for each of ``spec.contexts``.
            temperature: see ``Sampling``, as for the other options.
            top_k: likeliest levels to draw from.
            top_p: their probability in all.
            truncation: how near latents are kept to their mean.
            generator: source of all randomness, on the model's device.
            progress: called now and then with the share of the work that is done.

        Raises:
            UserError: an option out of its range or that the model does not take; labels or contexts that do
                not fit it.
        """
        check_at_least(1, n=n)
        options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, truncation=truncation)
        self.check_sampling(options)
        labels, contexts = self._given(n, labels, contexts, generator)
        with torch.no_grad():
            given = (n, labels, contexts, options)
            return self.draw(*given, generator=generator, progress=progress or unwatched)

    @abstractmethod
    def draw(
        self,
        n: int,
        labels: Tensor | None,
        contexts: tuple[Tensor, ...],
        options: Sampling,
        *,
        generator: Generator | None,
        progress: Callable[[float], None],
    ) -> Tensor:
        """What ``sample`` returns; its arguments are checked, and classes are drawn, when it is called."""

    def _given(
        self, n: int, labels: Tensor | None, contexts: Sequence[Tensor], generator: Generator | None
    ) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """What samples are conditioned on, checked and on its device; classes at random if none are given."""
        if labels is not None:
            self.check_labels(labels, n)
            labels = labels.to(self.device)
        elif self.sample_classes:
            labels = torch.randint(self.sample_classes, (n,), device=self.device, generator=generator)
        self.spec.check_contexts(contexts, n)
        return labels, tuple(context.to(self.device) for context in contexts)

    @property
    def sample_classes(self) -> int:
        """Number of classes that ``sample`` can be asked for by labels; 0 if it does not draw by class."""
        return 0

    def check_labels(self, labels: Tensor, n: int) -> None:
        """Raise UserError unless ``labels`` are ``n`` classes that ``sample`` draws from."""
        if not self.sample_classes:
            raise UserError(
                f"expected no labels, got some: this {type(self).__name__} does not draw by class",
                "leave labels out, or train a class-conditional model (as vqvae is by default) "
                "on data with classes",
            )
        self.spec.check_labels(labels, n)

    def check_sampling(self, options: Sampling) -> None:
        """Raise UserError for an option of sampling that the model does not take."""
        for field in fields(Sampling):
            if getattr(options, field.name) != field.default and field.name not in self.sampling_options:
                name = field.name.replace("_", "-")
                taken = ", ".join(sorted(o.replace("_", "-") for o in self.sampling_options)) or "no options"
                raise UserError(
                    f"expected no {name}, got one: {type(self).__name__} takes {taken}", "leave it out"
                )

    @property
    def likelihood(self) -> LikelihoodKind:
        """What ``log_likelihood`` is for this configuration and spec: exact, a lower bound, or none."""
        return "none"

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x) of each example given its contexts, and its class where labels are given, ``(N,)`` nats.

        Of continuous data it is a log density. It is exact or a lower bound, as ``likelihood`` says.

        Args:
            batch: examples that the spec describes; without labels the classes of a class-conditional model
                are equally likely.
            k: samples of an importance-weighted bound (models with ``importance_weighted``).

        Raises:
            UserError: the model has no likelihood, or none that k samples would improve.
        """
        raise UserError(
            f"expected a model with a likelihood, got {type(self).__name__}",
            "ancestral models lists which have one",
        )

    @property
    def importance_weighted(self) -> bool:
        """Whether more than one sample (k) makes ``log_likelihood`` a tighter bound."""
        return False

    def check_importance_samples(self, k: int) -> None:
        """Raise UserError for k < 1 samples, or for several where they mean nothing."""
        if k < 1:
            raise UserError(f"expected at least 1 importance sample, got {k}", "try 50")
        if k > 1 and not self.importance_weighted:
            reason = {
                "exact": "whose likelihood is exact",
                "bound": "whose bound is the same for all samples",
                "none": "which has no likelihood",
            }[self.likelihood]
            problem = f"expected a model to draw importance samples from, got {type(self).__name__}, {reason}"
            raise UserError(problem, "leave --importance-samples out")

    def check_trained(self) -> None:
        """Raise UserError if it is known that too few stages were trained for samples.

        ``trained`` names those that were.
        """
        if self.trained and not self.can_sample(self.trained):
            missing = next(s.name for s in self.stages() if s.name not in self.trained and not s.optional)
            problem = f"expected a model with all stages trained, got one without {missing}"
            raise UserError(problem, "give its train command again")

    def can_sample(self, trained: Sequence[str]) -> bool:
        """Whether the model can be sampled after these stages of its training."""
        stages = self.stages()
        ready = [i for i, stage in enumerate(stages) if stage.samples and stage.name in trained]
        return any(all(s.optional or s.name in trained for s in stages[:i]) for i in ready)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, the Hugging Face Hub's layout."""
        folder = Path(folder)
        write_tensors(folder / hub.WEIGHTS, self.state_dict())
        config = {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "config": to_json(self.config),
            "spec": to_json(self.spec),
            "trained": list(self.trained),
            "sha256": checksum(folder / hub.WEIGHTS),
        }
        write_json(folder / hub.CONFIG, config)

    @staticmethod
    def is_saved(folder: Path) -> bool:
        """Whether a folder holds a model whose weights are those that were written with its configuration."""
        try:
            return bool(read_json(folder / hub.CONFIG)["sha256"] == checksum(folder / hub.WEIGHTS))
        except (Damaged, KeyError, TypeError):
            return False

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """Load a model of this class from a folder or from the Hub, in evaluation mode, on the CPU.

        Raises:
            UserError: there is no model, it is of another class, or its weights are torn or do not fit its
                configuration.
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
        config, spec = (
            from_json(cls.Config, data["config"], where="config"),
            from_json(Spec, data["spec"], where="spec"),
        )
        weights = read_tensors(folder / hub.WEIGHTS)
        if "sha256" in data and data["sha256"] != checksum(folder / hub.WEIGHTS):
            problem = f"expected {folder / hub.WEIGHTS} as its configuration says, got another content"
            raise UserError(problem, "restore it; of a run, give its train command again")
        with torch.random.fork_rng(devices=[]):  # the first weights draw from the caller's generator
            model = cls(config, spec)
        model.trained = tuple(data.get("trained", ()))
        model.load_weights(weights, str(folder / hub.WEIGHTS))
        return model.eval()

    def push_to_hub(self, name: str, *, token: str | None = None, private: bool = False) -> str:
        """Upload the model to the repository ``name`` of the Hub; its address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            return hub.push(Path(folder) / "model", name, token=token, private=private)

    def load_weights(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Load a full state.

        Raises:
            UserError: it is another model's or configuration's; the first misfit is named.
        """
        own = self.state_dict()
        missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        misfits = sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
        if missing or foreign or misfits:
            name = (misfits or missing or foreign)[0]
            got = tuple(weights[name].shape) if name in weights else "none"
            expected = tuple(own[name].shape) if name in own else "none"
            raise UserError(
                f"expected weights for this configuration, got others in {source}: "
                f"{name} is {got}, not {expected}",
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


def unwatched(share: float) -> None:
    """Progress that nobody watches."""
