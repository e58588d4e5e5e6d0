"""What a training does: what a recipe, a run to start from, files of options and single changes add up to."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ancestral.configuration import from_json
from ancestral.data import Preparation, preparation_of
from ancestral.errors import UserError, nearest
from ancestral.model import Model
from ancestral.recipe import Optimization, Recipe
from ancestral.runs import Run
from ancestral.stages import Stage, needed
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
    bases: tuple[Run, ...] = ()
    """The runs that stages are taken over from, each from the first that has trained it."""
    asked: tuple[str, ...] = ()
    """The stages whose options are not the recipe's."""

    @classmethod
    def of(
        cls,
        model: type[Model],
        data: str | None,
        *,
        recipe: str | None = None,
        start_from: str | Path | Sequence[str | Path] | None = None,
    ) -> "Plan":
        """What is done where nothing is changed.

        It is what the recipe says, with the configuration and the preparation of the run to start from, the
        first of several; but the options of a stage are those of the run that the stage comes from.

        Raises:
            UserError: there is no such recipe or run, or the run is of another model.
        """
        name, chosen = find_recipe(model, recipe)
        kind = preparation_of(data) if data is not None else None
        paths = [start_from] if isinstance(start_from, str | Path) else list(start_from or ())
        bases = tuple(map(Run.open, paths))
        config, preparation = chosen.model, (kind or preparation_of(model.default_data))()
        for base in bases:
            if base.model_name != name_of(model):
                problem = f"expected a run of the same model to start from, got {base.model_name}"
                raise UserError(problem, "choose another run")
        if bases:
            config = from_json(model.Config, _joined(model, bases), where="model")
            if kind in (None, type(bases[0].preparation)):
                preparation = bases[0].preparation
        stages = dict(chosen.stages)
        return cls(model, name, chosen.source, config, stages, preparation, TrainingOptions(), bases)

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
        asked = [name for name, there in self.stages.items() if optimizations[name] != there]
        return dataclasses.replace(
            self,
            model=_changed(self.model, model, "model", self.cls.Config),
            stages=optimizations,
            asked=(*self.asked, *asked),
            preparation=_changed(self.preparation, preparation, self.preparation.kind, Preparation),
            options=_changed(self.options, options, "options", TrainingOptions),
        )

    def fitted(self, stages: Sequence[Stage]) -> "Plan":
        """The plan for a model that has these stages, which depend on its configuration and its data.

        One that the recipe does not name is optimized like the next one that it names, else the one before,
        unless it is optional: then it is not trained. What the recipe names beyond them is left out.

        Raises:
            UserError: the recipe names none of them.
        """
        known = [stage.name in self.stages for stage in stages]
        if not any(known):
            got = ", ".join(self.stages) or "none"
            problem = f"expected a recipe for the stages {', '.join(s.name for s in stages)}, got {got}"
            raise UserError(problem, "name them in the recipe as stages() does")
        names = [stage.name for stage in stages]
        if idle := [name for name in self.asked if name not in names]:
            problem = f"expected options of the stages {', '.join(names)}, got some of {idle[0]}"
            raise UserError(problem, f"leave --{idle[0]} out: for this model and data there is no such stage")
        found = {}
        for i, stage in enumerate(stages):
            if known[i] or not stage.optional:
                following = [s.name for s, there in zip(stages[i:], known[i:], strict=True) if there]
                before = [s.name for s, there in zip(stages[:i], known[:i], strict=True) if there]
                found[stage.name] = self.stages[(following or before[::-1])[0]]
        return dataclasses.replace(self, stages=found)

    def trained(
        self, stages: Sequence[Stage], only: Sequence[str], there: Collection[str] = ()
    ) -> tuple[str, ...]:
        """The names of the stages to train, of all that the model has; none where runs are only joined.

        Of the others those are taken over that a run to start from has trained, and the rest is left out.
        Without ``only``, all are trained that no run has; where the only one has them all, the last.

        Args:
            stages: all of the model's; the plan is ``fitted`` to them.
            only: names of those to train.
            there: names of those that the runs to start from have trained.

        Raises:
            UserError: an unknown stage, one that lacks a stage that it builds on, or one that would be
                worthless because it builds on one that is trained anew.
        """
        for name in only:
            if name not in self.stages:
                raise UserError(f"expected a stage to train, got {name}", nearest(name, self.stages))
        if self.bases and len(stages) < 2:
            problem = f"expected a model of several stages for --from, got {self.cls.__name__} with one"
            raise UserError(problem, "leave --from out")
        lacking = {name for name in self.stages if name not in there}
        again = len(self.bases) == 1 and not lacking
        chosen = {*only} or ({list(self.stages)[-1]} if again else lacking)
        named = ", ".join(stage.name for stage in stages if stage.name in chosen)
        for stage in stages:
            builds_on = needed(stage, stages)
            if stage.name in chosen:
                absent = (
                    s.name for s in stages if s.name in builds_on - chosen - {*there} and not s.optional
                )
                if missing := next(absent, None):
                    problem = f"expected to train stage {missing} too, got {named} alone"
                    remedy = f"add {missing} to --stages, or name" if self.bases else "name"
                    raise UserError(problem, f"{remedy} a run to take it from with --from")
            elif stage.name in there and (anew := sorted(builds_on & chosen)):
                problem = f"expected to train stage {stage.name} too, which builds on {anew[0]}, got {named}"
                raise UserError(problem, f"add {stage.name} to --stages")
        return tuple(stage.name for stage in stages if stage.name in chosen)


def _joined(model: type[Model], bases: Sequence[Run]) -> dict[str, Any]:
    """The first run's configuration, where the options of a stage are those of the run that it comes from."""
    config: dict[str, Any] = dict(bases[0].manifest["config"])
    had, settled = set[str](), set[str]()
    for base in bases if len(bases) > 1 else ():
        there = [stage for stage in base.trained if stage not in had]
        own = {name for stage in there for name in model.options_of(stage)} - settled
        config |= {name: value for name, value in base.manifest["config"].items() if name in own}
        had, settled = had | {*there}, settled | own
    return config


def find_recipe(cls: type[Model], name: str | None) -> tuple[str, Recipe]:
    """A recipe of a model by its name, or the model's first. Raises UserError for an unknown name."""
    if not getattr(cls, "recipes", None):
        raise UserError(
            f"expected a model with recipes, got {cls.__name__} without", "give the class recipes"
        )
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
