"""Weights of earlier runs in place of a training: which run each stage comes from, and whether they fit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ancestral.configuration import differences, to_json
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.runs import Run
from ancestral.spec import Spec
from ancestral.stages import Stage, needed, owned

_LOOSE = "what no stage trains"


@dataclass(frozen=True)
class Source:
    """A run whose stages may be taken over."""

    run: Run
    model: Model
    trained: frozenset[str]

    @classmethod
    def of(cls, run: Run) -> "Source":
        """The run with its model. Raises UserError while it has not finished a stage."""
        model = run.load_model()
        return cls(run, model, frozenset(model.trained or (stage.name for stage in model.stages())))

    @property
    def path(self) -> Path:
        """Where the run is."""
        return self.run.path


@torch.no_grad()
def take_over(
    model: Model, sources: Sequence[Source], chosen: Sequence[str], among: Collection[str] | None = None
) -> tuple[str, ...]:
    """Copy the weights of every stage that is not trained from the first run that has trained it.

    What no stage trains comes from the first run. Returns the names of the stages.

    Args:
        model: freshly built; it gets the weights.
        sources: the runs, the first of which the model's configuration is of.
        chosen: names of the stages that are trained, whose weights stay as they are.
        among: names of the stages that may be taken over; all if None.

    Raises:
        UserError: the runs are on other data, their weights do not fit the configuration or the data, or
            stages of several do not belong together.
    """
    for source in sources:
        _check_data(model, source)
    stages, own = model.stages(), model.state_dict()
    taken: dict[str, Source] = {}
    loose = own.keys() - owned(model, [module for stage in stages for module in stage.modules])
    origins = {name: (_LOOSE, source) for source in sources[:1] for name in loose}
    for stage in stages:
        able = [source for source in sources if stage.name in source.trained]
        if stage.name not in chosen and able and (among is None or stage.name in among):
            taken[stage.name] = able[0]
            origins |= dict.fromkeys(owned(model, stage.modules), (f"stage {stage.name}", able[0]))
    _check_same_data([source for source in sources if source in taken.values()])
    for source in sources[1:]:
        _check_options(model, source, taken)
    states = {source.path: source.model.state_dict() for source in sources}
    for name, (part, source) in sorted(origins.items(), key=lambda item: item[0]):
        found = states[source.path].get(name)
        if found is None or found.shape != own[name].shape:
            raise _misfit(model, part, source, name, found)
        own[name].copy_(found)
    for stage in stages if len(sources) > 1 else ():
        if stage.name in taken:
            _check_together(model, stage, taken, states, origins)
    return tuple(taken)


def _check_data(model: Model, source: Source) -> None:
    there, here = source.model.spec, model.spec
    if (there.levels, there.shape[0]) != (here.levels, here.shape[0]):
        kind = f"{there.levels} levels in {there.shape[0]} channels"
        problem = f"expected a run on data like these, got one on {kind}: {source.path}"
        raise UserError(problem, "use the same kind of data")


def _check_same_data(sources: Sequence[Source]) -> None:
    """Raise UserError unless all the runs that stages are taken from were on the same data.

    One may be on others than the training at hand; but several would make a model of stages that learned from
    different examples.
    """
    for source in sources[1:]:
        first, other = sources[0].run.manifest, source.run.manifest
        found = differences(first["preparation"], other["preparation"])
        if first["data"]["fingerprint"] != other["data"]["fingerprint"] and not found:
            found = ["other examples"]
        if found:
            one, two = (f"{s.path} on {s.run.manifest['data']['source']}" for s in (sources[0], source))
            problem = f"expected runs on the same data to take stages from, got {one} and {two}"
            remedy = "give runs on the same data, prepared alike"
            raise UserError(f"{problem}: {', '.join(found[:4])}", remedy)


def _misfit(model: Model, part: str, source: Source, name: str, found: Tensor | None) -> UserError:
    """What to say of weights that do not fit: it is for the data if these differ, else for an option."""
    there, here = source.model.spec, model.spec
    got = "nothing" if found is None else tuple(found.shape)
    detail = f"{name} as {got}, not {tuple(model.state_dict()[name].shape)}"
    if (there.classes, there.shape) != (here.classes, here.shape):
        problem = f"expected data like those of {source.path} for {part}, with {_described(there)}, "
        problem += f"got some with {_described(here)}, which its weights do not fit ({detail})"
        return UserError(problem, "use data like those, or train that stage anew")
    problem = f"expected the weights of {part} in {source.path}, got {detail}"
    return UserError(problem, "leave the options of that stage as they are in the run")


def _described(spec: Spec) -> str:
    classes = "no classes" if not spec.classes else f"{spec.classes} class{'es' if spec.classes > 1 else ''}"
    return f"{classes} of shape {'x'.join(map(str, spec.shape))}"


def _check_options(model: Model, source: Source, taken: Mapping[str, Source]) -> None:
    """Raise UserError unless the run of some taken stages has the model's options.

    Those of stages that are not taken from it may be others.
    """
    mine = [name for name, origin in taken.items() if origin is source]
    others = {o for s in model.stages() if s.name not in mine for o in model.options_of(s.name)}
    others -= {option for name in mine for option in model.options_of(name)}
    there, here = (
        {name: value for name, value in config.items() if name not in others}
        for config in (source.run.manifest["config"], to_json(model.config))
    )
    if mine and (found := differences(there, here)):
        verb = "comes" if len(mine) == 1 else "come"
        problem = (
            f"expected the options of {source.path}, which {' and '.join(mine)} {verb} from, got others: "
        )
        raise UserError(problem + ", ".join(found[:4]), "give runs with the same options")


def _check_together(
    model: Model,
    stage: Stage,
    taken: Mapping[str, Source],
    states: Mapping[Path, Mapping[str, Tensor]],
    origins: Mapping[str, tuple[str, Source]],
) -> None:
    """Raise UserError if a stage was trained on other weights than those that are here now."""
    source, own, stages = taken[stage.name], model.state_dict(), model.stages()
    below = needed(stage, stages)
    used = {n for s in stages if s.name in below & source.trained for n in owned(model, s.modules)}
    for name, (part, origin) in sorted(origins.items(), key=lambda item: item[0]):
        if name not in used and part != _LOOSE:
            continue
        there = states[source.path].get(name)
        if there is None or not torch.equal(there.to(own[name]), own[name]):
            problem = f"expected stages that were trained together, got {stage.name} of {source.path}, "
            problem += f"which learned with other weights than {part} of {origin.path} ({name})"
            raise UserError(problem, "leave one of the runs out of --from")
