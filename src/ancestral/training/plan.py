"""What a training does: what a recipe, a run to start from, files of options and single changes add up to."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancestral.configuration import from_json
from ancestral.data import Preparation, preparation_of
from ancestral.errors import UserError, nearest
from ancestral.model import Model
from ancestral.recipe import Optimization, Recipe
from ancestral.runs import Run
from ancestral.stages import Stage
from ancestral.taxonomy import name_of
from ancestral.training.options import TrainingOptions

SECTIONS = ("model", "stages", "preparation", "options")
"""The parts of a plan that can be changed, as files of options name them."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a training besides its data."""

    cls: type[Model]
    recipe: str
    source: str
    """Where the recipe's settings come from."""
    model: Any
    """The model's Config."""
    stages: Mapping[str, Optimization]
    preparation: Preparation
    options: TrainingOptions
    base: Run | None = None
    """The run that stages are taken over from."""

    @classmethod
    def of(
        cls,
        model: type[Model],
        data: str | None,
        *,
        recipe: str | None = None,
        start_from: Any = None,
    ) -> "Plan":
        """What is done where nothing is changed.

        It is what the recipe says, with the configuration and the preparation of the run to start from.

        Raises:
            UserError: there is no such recipe or run, or the run is of another model.
        """
        name, chosen = find_recipe(model, recipe)
        kind = preparation_of(data) if data is not None else None
        base = Run.open(start_from) if start_from is not None else None
        config, preparation = chosen.model, (kind or preparation_of("digits"))()
        if base is not None:
            if base.model_name != name_of(model):
                problem = f"expected a run of the same model to start from, got {base.model_name}"
                raise UserError(problem, "choose another run")
            config = from_json(model.Config, base.manifest["config"], where="model")
            if kind in (None, type(base.preparation)):
                preparation = base.preparation
        stages = dict(chosen.stages)
        return cls(model, name, chosen.source, config, stages, preparation, TrainingOptions(), base)

    def changed(
        self,
        *,
        model: Any = None,
        stages: Any = None,
        preparation: Any = None,
        options: Any = None,
        where: str = "",
    ) -> "Plan":
        """The plan with other values: whole configurations, or mappings of what is to be another.

        Args:
            model: Config, or a mapping of its fields.
            stages: by name, an Optimization or a mapping of its fields.
            preparation: Preparation, or a mapping of its fields.
            options: TrainingOptions, or a mapping of its fields.
            where: where the values stand, for messages.

        Raises:
            UserError: an unknown name, or a value of another type or out of its range.
        """
        where = f" in {where}" if where else ""
        if not isinstance({} if stages is None else stages, Mapping):
            raise UserError(f"expected stages by name{where}, got {stages!r}", "see --print-config")
        optimizations = dict(self.stages)
        for name, change in (stages or {}).items():
            if name not in optimizations:
                problem = f"expected a stage of the model{where}, got {name}"
                raise UserError(problem, nearest(name, optimizations))
            optimizations[name] = _changed(optimizations[name], change, name, Optimization)
        return dataclasses.replace(
            self,
            model=_changed(self.model, model, "model", self.cls.Config),
            stages=optimizations,
            preparation=_changed(self.preparation, preparation, self.preparation.kind, Preparation),
            options=_changed(self.options, options, "options", TrainingOptions),
        )

    def trained(self, stages: Sequence[Stage], only: Sequence[str]) -> tuple[str, ...]:
        """The names of the stages to train, of all that the model has.

        The others are taken over from the run to start from. Without ``only``, the last one is
        trained where there is such a run, else all that the recipe has.

        Raises:
            UserError: an unknown stage, or one that would be missing, or worthless because it builds on one
                that is trained anew.
        """
        names = [stage.name for stage in stages]
        for name in only:
            if name not in self.stages:
                raise UserError(f"expected a stage to train, got {name}", nearest(name, self.stages))
        if self.base is not None and len(names) < 2:
            problem = f"expected a model of several stages for --from, got {self.cls.__name__} with one"
            raise UserError(problem, "leave --from out")
        chosen = {*only} or ({names[-1]} if self.base is not None else {*self.stages})
        for i, stage in enumerate(stages):
            needed = {*names[:i]} if stage.needs is None else {*stage.needs}
            if stage.name in chosen or (self.base is None and stage.optional):
                continue
            if self.base is None:
                problem = f"expected to train stage {stage.name} too, got {', '.join(sorted(chosen))} alone"
                raise UserError(problem, "name a run to take it from with --from")
            if anew := sorted(needed & chosen):
                got = ", ".join(only)
                problem = f"expected to train stage {stage.name} too, which builds on {anew[0]}, got {got}"
                raise UserError(problem, f"add {stage.name} to --stages")
        return tuple(name for name in names if name in chosen)


def find_recipe(cls: type[Model], name: str | None) -> tuple[str, Recipe]:
    """A recipe of a model by its name, or the model's first. Raises UserError for an unknown name."""
    if name is None:
        return next(iter(cls.recipes.items()))
    if name not in cls.recipes:
        raise UserError(f"expected a recipe of {cls.__name__}, got {name}", nearest(name, cls.recipes))
    return name, cls.recipes[name]


def _changed(there: Any, change: Any, where: str, kind: type[Any]) -> Any:
    if change is None:
        return there
    if isinstance(change, Mapping):
        return from_json(type(there), change, where=where, base=there)
    if not isinstance(change, kind):
        got = f"the class {change.__qualname__}" if isinstance(change, type) else type(change).__qualname__
        problem = f"expected {where} as {kind.__qualname__}, got {got}"
        raise UserError(problem, f"write {kind.__qualname__}(...), or a mapping of the fields to change")
    return change
