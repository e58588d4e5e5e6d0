"""The contract of every model: what the loop, the commands and the tests may ask of it."""

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from ancestral import hub
from ancestral.batch import Batch
from ancestral.columns import Columns
from ancestral.configuration import Configuration, Count, from_json, to_json
from ancestral.errors import UserError, check_at_least, nearest, shown
from ancestral.files import Damaged, checksum, read_tensors, write_json, write_tensors
from ancestral.memory import check_room
from ancestral.recipe import Recipe
from ancestral.records import read_record
from ancestral.sampling import PerLevel, Sampling
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage, owned

LikelihoodKind = Literal["exact", "bound", "none"]

_MOST_IMPORTANCE_SAMPLES = 1_000_000
"""Each is a pass, and all of their weights are in memory."""


@dataclass(frozen=True, kw_only=True)
class Saved(Configuration):
    """What ``config.json`` says of a model."""

    open = True
    class_: str
    module: str | None = None
    config: Mapping[str, Any]
    """JSON of the class's own Config."""
    spec: Spec
    trained: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    columns: Columns | None = None
    absent: Mapping[str, Count] = field(default_factory=dict)
    """Stages that were never trained and whose weights are not saved; of each, how many values these have."""
    sha256: str | None = None
    """Checksum of the weights; none for those of an earlier version."""


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
    default_data: ClassVar[str] = "digits"
    """An embedded data set of the kind that the model is mostly for."""
    choices: ClassVar[Mapping[str, tuple[Configuration, ...]]] = {}
    """For each field of Config that holds one of several configurations: those it may be, as the command line
    starts from them."""
    sampling_options: ClassVar[frozenset[str]] = frozenset({"temperature"})
    """The fields of ``Sampling`` that the model takes."""
    needs_classes: ClassVar[bool] = False
    """Whether the model is for data with classes alone."""
    takes_contexts: ClassVar[bool] = False
    """Whether the model can be conditioned on contexts."""
    repeated: ClassVar[tuple[type[nn.Module], ...]] = ()
    """The kinds of blocks that make up its networks, large parts that a training can treat one by one to save
    memory (see ``repeated_blocks``). Their forward pass is a function of their inputs, weights and torch's
    random numbers, and counts no statistics."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(config := vars(cls).get("Config"), type):
            config.model = cls  # type: ignore[attr-defined]

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__()
        if self.needs_classes and spec.classes < 2:
            got, name = spec.classes or "none", type(self).__name__
            problem = f"expected data of at least 2 classes for {name}, got {got}"
            raise UserError(problem, "give each class a folder of its own, or choose a model without classes")
        if spec.contexts and not self.takes_contexts:
            problem = f"expected data without contexts for {type(self).__name__}, got {len(spec.contexts)}"
            raise UserError(problem, "use an autoregressive model, which can be conditioned on them")
        self.config = config
        self.spec = spec
        self.trained: tuple[str, ...] = ()
        """The stages that were trained to their end; empty for a model that was never saved by a training."""
        self.classes: tuple[str, ...] = ()
        """The name of each class of the data that it was trained on, if these have names."""
        self.columns: Columns | None = None
        """The columns of the table that it was trained on, and how they were standardized."""

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order. The names are those of the recipes."""
        return (Stage("training", (Phase("training", (self,)),)),)

    @classmethod
    def options_of(cls, stage: str) -> tuple[str, ...]:
        """The fields of ``Config`` that matter to a stage, to others that name them too, and to nothing else.

        Where the stage is taken over from another run, they come with it. By default a field that is called
        like the stage.
        """
        return (stage,) if stage in {field.name for field in fields(cls.Config)} else ()

    @abstractmethod
    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """The loss of a phase on a batch that the stage's ``prepare`` and ``transform`` have seen."""

    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        *,
        contexts: Sequence[Tensor] = (),
        temperature: PerLevel[float] = 1.0,
        top_k: PerLevel[int | None] = None,
        top_p: PerLevel[float | None] = None,
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
        self.check_room(n)
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
    def sampling_levels(self) -> int:
        """Levels, each of which may be drawn with options of its own: of a model with several priors."""
        return 1

    @property
    def sample_classes(self) -> int:
        """Number of classes that ``sample`` can be asked for by labels; 0 if it does not draw by class."""
        return 0

    def classes_of(self, names: Sequence[int | str]) -> Tensor:
        """Classes by their names or their numbers, ``(N,)``; digits are a name if a class has that one.

        Raises:
            UserError: there is no such class, or ``sample`` does not draw by class.
        """
        self._check_by_class()
        return torch.tensor(numbers_of(names, self.classes, self.sample_classes), dtype=torch.int64)

    def check_labels(self, labels: Tensor, n: int) -> None:
        """Raise UserError unless ``labels`` are ``n`` classes that ``sample`` draws from."""
        self._check_by_class()
        self.spec.check_labels(labels, n)

    def check_room(self, n: int) -> None:
        """Raise UserError for more examples than the memory holds."""
        check_room(n * self.spec.dims * self.spec.dtype.itemsize, f"{n} samples", "ask for fewer")

    def _check_by_class(self) -> None:
        """Raise UserError unless ``sample`` draws by class."""
        if not self.sample_classes:
            raise UserError(
                f"expected no labels, got some: this {type(self).__name__} does not draw by class",
                "leave labels out, or train a model that is class-conditional on data with classes",
            )

    def check_sampling(self, options: Sampling) -> None:
        """Raise UserError for an option of sampling that the model does not take."""
        for option in fields(Sampling):
            if getattr(options, option.name) != option.default and option.name not in self.sampling_options:
                name = option.name.replace("_", "-")
                names = sorted(o.replace("_", "-") for o in self.sampling_options)
                taken = ", ".join(names) or "none of these"
                raise UserError(
                    f"expected no {name}, got one: {type(self).__name__} takes {taken}", "leave it out"
                )
            value = getattr(options, option.name)
            if isinstance(value, tuple) and len(value) != self.sampling_levels:
                many = (
                    f", or one for each of {self.sampling_levels} levels" if self.sampling_levels > 1 else ""
                )
                name = option.name.replace("_", "-")
                raise UserError(
                    f"expected one {name}{many}, got {len(value)}", "give as many, coarse to fine"
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
        if k > _MOST_IMPORTANCE_SAMPLES:
            problem = f"expected at most {_MOST_IMPORTANCE_SAMPLES:,} importance samples, got {shown(k)}"
            raise UserError(problem, "try 50")
        if k > 1 and not self.importance_weighted:
            reason = {
                "exact": "whose likelihood is exact",
                "bound": "whose bound is the same for all samples",
                "none": "which has no likelihood",
            }[self.likelihood]
            problem = f"expected a model to draw importance samples from, got {type(self).__name__}, {reason}"
            raise UserError(problem, "leave --importance-samples out")

    @property
    def untrained(self) -> tuple[str, ...]:
        """The stages that are known not to be trained, as ``trained`` tells, without optional ones."""
        names = tuple(s.name for s in self.stages() if s.name not in self.trained and not s.optional)
        return names if self.trained else ()

    def check_trained(self) -> None:
        """Raise UserError if it is known that too few stages were trained for samples.

        ``trained`` names those that were.
        """
        if self.trained and not self.can_sample(self.trained):
            missing = self.untrained
            problem = f"expected a model with all stages trained, got one without {' and '.join(missing)}"
            raise UserError(problem, f"train the rest: --stages {' '.join(missing)}, with --from its run")

    def can_sample(self, trained: Sequence[str]) -> bool:
        """Whether the model can be sampled after these stages of its training."""
        stages = self.stages()
        ready = [i for i, stage in enumerate(stages) if stage.samples and stage.name in trained]
        return any(all(s.optional or s.name in trained for s in stages[:i]) for i in ready)

    def save_pretrained(
        self, folder: str | Path, *, without: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, the Hugging Face Hub's layout.

        Args:
            folder: where.
            without: by stage that is not trained, the names of its weights, which are not written. Whoever
                loads the model gets random ones, as the first weights of a training are.
        """
        folder, state = Path(folder), self.state_dict()
        absent = {stage: {*names} & state.keys() for stage, names in (without or {}).items()}
        left_out = {name for names in absent.values() for name in names}
        write_tensors(folder / hub.WEIGHTS, {n: t for n, t in state.items() if n not in left_out})
        saved = Saved(
            class_=type(self).__name__,
            module=type(self).__module__,
            config=to_json(self.config),
            spec=self.spec,
            trained=self.trained,
            classes=self.classes,
            columns=self.columns,
            absent={stage: sum(state[n].numel() for n in names) for stage, names in absent.items() if names},
            sha256=checksum(folder / hub.WEIGHTS),
        )
        write_json(folder / hub.CONFIG, to_json(saved))

    @staticmethod
    def is_saved(folder: Path) -> bool:
        """Whether a folder holds a model whose weights are those that were written with its configuration."""
        try:
            return read_record(Saved, folder / hub.CONFIG).sha256 == checksum(folder / hub.WEIGHTS)
        except Damaged:
            return False

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """Load a model of this class from a folder or from the Hub, in evaluation mode, on the CPU.

        Raises:
            UserError: there is no model, it is of another class, or its weights are torn or do not fit its
                configuration.
        """
        folder = hub.fetch(str(name))
        saved = read_record(Saved, folder / hub.CONFIG)
        if saved.class_ != cls.__name__:
            problem = f"expected a {cls.__name__} in {folder}, got {saved.class_}"
            raise UserError(problem, "load it with ancestral.load")
        config = from_json(cls.Config, saved.config, where="config")
        weights = read_tensors(folder / hub.WEIGHTS)
        if saved.sha256 not in (None, checksum(folder / hub.WEIGHTS)):
            problem = f"expected {folder / hub.WEIGHTS} as its configuration says, got another content"
            raise UserError(problem, "restore it; of a run, give its train command again")
        with torch.random.fork_rng(devices=[]):  # the first weights draw from the caller's generator
            torch.default_generator.manual_seed(0)  # those of stages that are absent are always the same
            values = sum(tensor.numel() for tensor in weights.values()) + sum(saved.absent.values())
            model = cls.fitting(config, saved.spec, 4 * values + _TABLES)
        model.trained, model.classes, model.columns = saved.trained, saved.classes, saved.columns
        untrained = [stage for stage in model.stages() if stage.name not in saved.trained]
        absent = [m for stage in untrained if stage.name in saved.absent for m in stage.modules]
        model.load_weights(weights, str(folder / hub.WEIGHTS), absent=owned(model, absent))
        return model.eval()

    @classmethod
    def fitting(cls, config: Any, spec: Spec, most: int | None = None) -> Self:
        """A new model. Raises UserError, before it is allocated, for one that the memory does not hold.

        Or for one that makes more than ``most`` values.
        """
        with _Allowance(cls.__name__, most):
            return cls(config, spec)

    def push_to_hub(self, name: str, *, token: str | None = None, private: bool = False) -> str:
        """Upload the model to the repository ``name`` of the Hub; its address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            return hub.push(Path(folder) / "model", name, token=token, private=private)

    def load_weights(
        self, weights: Mapping[str, Tensor], source: str, *, absent: Collection[str] = ()
    ) -> None:
        """Load a full state.

        Args:
            weights: by name.
            source: where they are from.
            absent: names that may be missing; what the model has of them stays.

        Raises:
            UserError: it is another model's or configuration's; the first misfit is named.
        """
        own = self.state_dict()
        missing, foreign = own.keys() - weights.keys() - {*absent}, weights.keys() - own.keys()
        misfits = sorted(k for k in own.keys() & weights.keys() if not _fits(weights[k], own[k]))
        if missing or foreign or misfits:
            name = (misfits or sorted(missing) or sorted(foreign))[0]
            got, expected = (_described(state.get(name)) for state in (weights, own))
            raise UserError(
                f"expected weights for this configuration, got others in {source}: "
                f"{name} is {got}, not {expected}",
                "use the configuration that the weights were trained with",
            )
        self.load_state_dict({**own, **weights})

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


def numbers_of(names: Sequence[int | str], known: Sequence[str], count: int) -> list[int]:
    """The numbers of classes, of which there are ``count``, by ``known`` names or by numbers.

    Raises:
        UserError: there is no such class.

    >>> numbers_of(["5", "0"], ["3", "5"], 2)
    [1, 0]
    """
    position, found = {name: i for i, name in enumerate(known)}, []
    for name in names:
        if name in position:
            found.append(position[str(name)])
            continue
        try:
            found.append(int(name))
        except (TypeError, ValueError):
            problem = f"expected a class of the model, got {name}"
            raise UserError(problem, nearest(str(name), known or [f"0..{count - 1}"])) from None
    least, most = min(found, default=0), max(found, default=0)
    if least < 0 or most >= count:
        got = f"{least}..{most}" if least != most else least
        named = f": {', '.join(known)}" if 0 < len(known) <= 20 else ""
        problem = f"expected labels 0..{count - 1}, got {got}"
        raise UserError(problem, f"choose labels among the model's classes{named}")
    return found


def repeated_blocks(model: Model, modules: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """The blocks inside some modules of a model that it, or a model that is a part of it, calls ``repeated``.

    Each once, in order; of blocks in blocks the outer ones alone.
    """
    kinds = [(part, part.repeated) for part in model.modules() if isinstance(part, Model)]
    found = {id(m): m for part, kind in kinds for m in part.modules() if isinstance(m, kind)}
    inner = {id(m) for block in found.values() for m in block.modules() if m is not block}
    inside = {id(m): m for module in modules for m in module.modules()}
    return tuple(m for i, m in inside.items() if i in found and i not in inner)


_TABLES = 2**26
"""Values that a network may make besides its weights, and what these are made from: masks, angles."""
_SIZED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange}
"""Functions that make a tensor of a size that they are given."""


class _Allowance(TorchFunctionMode):
    """Within, tensors are made while they have together at most so many values, and the memory holds them."""

    def __init__(self, name: str, most: int | None) -> None:
        super().__init__()
        self.name, self.most, self.values = name, most, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SIZED and args:
            sizes = args if isinstance(args[0], int) else args[0]
            self.values += math.prod(sizes)
            check_room(4 * self.values, f"this {self.name}", "choose smaller sizes")
            if self.most is not None and self.values > self.most:
                problem = (
                    f"expected a {self.name} of the size of its weights, got one of {self.values:,} values"
                )
                raise UserError(problem, "restore config.json, or the weights")
        return func(*args, **kwargs or {})


def _fits(tensor: Tensor, place: Tensor) -> bool:
    """Whether a tensor can be copied to a place with its meaning: floats of any precision to floats."""
    same = tensor.dtype == place.dtype or (tensor.is_floating_point() and place.is_floating_point())
    return same and tensor.shape == place.shape


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    floats = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{floats}"


def unwatched(share: float) -> None:
    """Progress that nobody watches."""
