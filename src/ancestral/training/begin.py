"""Train a model: what the command ``ancestral train`` does, and what gives a data set its classifiers.

Both are here since a training may be measured by a classifier, which is trained before it.
"""

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TextIO

import torch

from ancestral import runs
from ancestral.cache import cache
from ancestral.configuration import Configuration, to_json
from ancestral.data import Dataset, Preparation, load_data
from ancestral.errors import Interrupted, UserError, check_type
from ancestral.files import locked
from ancestral.measures.classifier import Classifier
from ancestral.model import Model
from ancestral.processes import alone
from ancestral.recipe import Optimization
from ancestral.runs import Run
from ancestral.stages import Stage
from ancestral.taxonomy import model_class
from ancestral.training.fabric import precision_of, processes
from ancestral.training.loop import Trainer
from ancestral.training.monitor import Monitor
from ancestral.training.options import RESULT_OPTIONS, TrainingOptions
from ancestral.training.plan import Plan
from ancestral.training.randomness import derive
from ancestral.training.size import described
from ancestral.training.summary import summary
from ancestral.training.takeover import Source, take_over

Role = Literal["features", "gate", "score"]
"""What a classifier is for. No network has two roles: one that chose samples would praise its choice."""

_FEW = 500
"""Examples below which a classifier takes fewer steps."""
_SEEDS: dict[Role, int] = {"features": 0, "gate": 1, "score": 2}
_VERSION = 1
"""Of the classifiers' training, raised when a default that it uses changes."""


def train(
    model: str | type[Model],
    *,
    data: str | Dataset[Any],
    out: str | Path,
    recipe: str | None = None,
    config: Any = None,
    stages: Mapping[str, Optimization | Mapping[str, Any]] | None = None,
    preparation: Preparation | Mapping[str, Any] | None = None,
    options: TrainingOptions | None = None,
    start_from: str | Path | Sequence[str | Path] | None = None,
    only: Sequence[str] = (),
) -> Run:
    """Train ``model`` on ``data`` into the run directory ``out``.

    The same call again resumes, or finds the run complete.

    Args:
        model: a name of the taxonomy, ``module:Class``, or a class.
        data: ``digits``, ``fashion-mnist``, a folder of images or of sounds, ``hub:OWNER/NAME``, ``tones``,
            ``asterisk``, ``gcin-voice`` or ``table:FILE``; or a data set of your own, which the functions
            that use the run need again.
        out: the run directory.
        recipe: name of the recipe to start from; the model's first if None.
        config: the model's Config, or a mapping of the fields to change in the recipe's.
        stages: by name of a stage, its Optimization or a mapping of the fields to change.
        preparation: how the data are prepared and augmented, or a mapping of the fields to change.
        options: how the training runs.
        start_from: a run, or several, whose stages are taken over where they are not trained, each from the
            first that has trained it.
        only: names of the stages to train, which need the stages that they build on. If there are none, all
            that no run to start from has; where the only one has them all, the last. A run that goes on
            trains and takes over what it did when it began, though a run to start from may have more now.

    Raises:
        UserError: anything asked for cannot be done; nothing is overwritten.
        Interrupted: Ctrl-C or SIGTERM; the same call resumes.
    """
    cls = model_class(model) if isinstance(model, str) else model
    check_type(cls, type, "the name of a model or its class", "ancestral models lists the names")
    check_type(data, str | Dataset, "a source of data", "give digits, fashion-mnist or a folder's path")
    source = data if isinstance(data, str) else None
    plan = Plan.of(cls, source, recipe=recipe, start_from=start_from)
    if source is None and preparation is not None:
        problem = "expected no preparation of a data set that is there already, got one"
        raise UserError(problem, "leave preparation out")
    plan = plan.changed(model=config, stages=stages, preparation=preparation, options=options)
    plan = replace(plan, options=replace(plan.options, precision=precision_of(plan.options)))
    dataset = data if isinstance(data, Dataset) else load_data(data, plan.preparation)
    network = build(cls, plan.model, dataset.spec, plan.options.seed)
    network.classes, network.columns = dataset.classes, dataset.columns
    parts = network.stages()
    plan = plan.fitted(parts)
    path, origins = Path(out), [str(base.path) for base in plan.bases]
    chosen, taken = _taken_over(network, plan, only, _begun(path, origins))
    optimizations = {name: plan.stages[name] for name in chosen}
    result_options = {name: getattr(plan.options, name) for name in RESULT_OPTIONS}
    result_options["processes"] = processes()
    manifest = runs.manifest(
        cls,
        config=to_json(plan.model),
        spec=to_json(dataset.spec),
        stages=to_json(plan.stages),
        data=dataset,
        options=to_json(plan.options),
        result_options=result_options,
        recipe=plan.recipe,
        source=plan.source,
    )
    manifest |= {"parameters": {stage.name: _parameters(stage) for stage in parts}}
    manifest |= {"parameters_in_all": _parameters(*parts)}
    manifest |= {"threads": torch.get_num_threads()}
    if origins:
        manifest |= {"from": origins, "taken": list(taken)}
    if origins or {*chosen} != {*plan.stages}:
        manifest["only"] = list(chosen)
    monitor = None
    if Monitor.is_wanted(dataset, [part for part in parts if part.name in chosen], plan.options):
        classifier = classifier_of(
            dataset, "features", progress=True, instead="; --measure-every 0 does without"
        )
        monitor = Monitor(classifier, dataset.validation, plan.options.seed)
    trainer = Trainer(
        network,
        dataset,
        optimizations,
        options=plan.options,
        path=path,
        taken=taken,
        bases=[base.path for base in plan.bases],
        monitor=monitor,
    )
    if trainer.fabric.is_global_zero:
        Run.check(path, manifest)  # before a lock would leave a trace in somebody else's folder

    def describe() -> None:
        begun = Run.create(path, manifest).manifest.get("threads", manifest["threads"])
        if begun != manifest["threads"]:
            change = f"{begun} threads there, {manifest['threads']} here"
            print(f"going on with {change}: the weights will differ in their last digits", flush=True)
        dataset.write_splits(path / "splits.json")
        sizes = {name: manifest["parameters"][name] for name in chosen}
        memory = [described(trainer.held(stage), stage.name) for stage in trainer.stages]
        print(summary(dataset, sizes, memory, trainer.fabric, plan.options.precision), flush=True)

    trainer.fit(describe)
    return Run.open(path)


def _begun(path: Path, origins: Sequence[str]) -> Run | None:
    """The run at ``path`` if it takes over stages from the same runs, which may have trained more since."""
    if not origins or not (path / "run.json").is_file():
        return None
    there = Run.open(path)
    return there if there.manifest.get("from") == list(origins) else None


def _taken_over(
    network: Model, plan: Plan, only: Sequence[str], begun: Run | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the stages that are trained, and of those whose weights the model has then got.

    The models of the runs to start from are loaded here, and here alone: a training has no use for them.

    Args:
        network: the model, freshly built; it gets the weights.
        plan: what is trained.
        only: names of the stages to train, as somebody asked.
        begun: the run that goes on, which trains and takes over what it did when it began.
    """
    sources, parts = [Source.of(base) for base in plan.bases], network.stages()
    if begun is None or (only and {*only} != {*begun.manifest.get("only", ())}):
        chosen = plan.trained(parts, only, {name for source in sources for name in source.trained})
        return chosen, take_over(network, sources, chosen)
    chosen = tuple(stage.name for stage in parts if stage.name in begun.manifest.get("only", ()))
    return chosen, take_over(network, sources, chosen, begun.manifest.get("taken"))


def build(cls: type[Model], config: Any, spec: Any, seed: int) -> Model:
    """A model whose initial weights depend on ``seed`` alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        return cls.fitting(config, spec)


def _parameters(*stages: Stage) -> int:
    """Trained parameters of stages together."""
    parameters = {id(p): p for stage in stages for module in stage.modules for p in module.parameters()}
    return sum(p.numel() for p in parameters.values())


def classifier_of(
    dataset: Dataset,
    role: Role = "features",
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    instead: str = "",
) -> Classifier:
    """The classifier of a data set for a role, in evaluation mode, on the CPU.

    It is trained if it is not there yet, into ``classifiers`` of the cache (ANCESTRAL_CACHE), and goes on
    where a killed training was. Of several processes one trains it, and the others wait. It sees the examples
    as they are: however a model's own are augmented, its judges are the same.

    Args:
        dataset: images with classes.
        role: the recipe that it has, its shape and its seed.
        seed: adds to the role's own, for several trainings of one role.
        device: where it is trained; on a GPU where there is one if None.
        progress: show the training, on the standard error.
        instead: what is said after its place: how to do without.

    Raises:
        UserError: the data are no images with classes, or there is no folder to keep it in.
    """
    dataset = replace(dataset, preparation=Preparation())
    recipe = Classifier.recipes[role]
    stage = recipe.stages["training"]
    n = len(dataset.train)
    steps = min(stage.steps, 4 * n) if n < _FEW else stage.steps
    stages = {"training": replace(stage, batch_size=min(stage.batch_size, n), steps=steps)}
    options = TrainingOptions(seed=_SEEDS[role] + 1000 * seed, sample_every=0)
    # What it depends on is in its name, so that a later version that changes it trains another one; but an
    # option that is new, and left alone, changes nothing.
    settings = [_VERSION, *map(_chosen, (recipe.model, stages["training"], options))]
    suffix = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    path = _folder() / f"{dataset.fingerprint[:16]}-{role}-{suffix}"
    if Classifier.is_saved(path / "model"):
        return Classifier.from_pretrained(path / "model")
    if device is not None and torch.device(device).type == "cpu":
        options = replace(options, device="cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")), alone():
        if not Classifier.is_saved(path / "model"):
            if progress:
                print(
                    f"training a classifier of {dataset.source} first ({role}), kept in {path}{instead}",
                    file=sys.stderr,
                )
            said = _Indented(sys.stderr) if progress else io.StringIO()
            with contextlib.redirect_stdout(said), torch.enable_grad():  # who asks may have turned them off
                try:
                    train(Classifier, data=dataset, out=path, recipe=role, stages=stages, options=options)
                except Interrupted as stop:
                    raise Interrupted("classifier", stop.step, stop.signal) from None
    return Classifier.from_pretrained(path / "model")


class _Indented(io.TextIOBase):
    """Lines that are set apart from those of what they are said for."""

    def __init__(self, to: TextIO) -> None:
        self.to = to

    def write(self, text: str) -> int:
        """Each line two places to the right."""
        self.to.write(
            "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))
        )
        return len(text)

    def flush(self) -> None:
        """See ``io.TextIOBase``."""
        self.to.flush()


def _chosen(settings: Configuration) -> dict[str, Any]:
    """The settings that are not what they are by default."""
    default = to_json(type(settings)())
    return {name: value for name, value in to_json(settings).items() if value != default[name]}


def _folder() -> Path:
    folder = cache("classifiers")
    if folder is None:
        problem = "expected a folder to keep classifiers in, got no home folder to make it in"
        raise UserError(problem, "name one: ANCESTRAL_CACHE=FOLDER")
    return folder
