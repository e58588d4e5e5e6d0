"""``ancestral train MODEL --data … --out …``."""

import dataclasses
import json
import shlex
import sys
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro

from ancestral.cli.parse import parse, shown_as, take_option, take_values
from ancestral.configuration import to_json
from ancestral.errors import UserError, nearest
from ancestral.files import read_json
from ancestral.processes import own_process
from ancestral.recipe import Optimization, Updates
from ancestral.runs import Run, command
from ancestral.taxonomy import INSTRUMENTS, model_class, name_of, rows, title
from ancestral.training import Interrupted, TrainingOptions, train
from ancestral.training.plan import Plan

_HELP = """usage: ancestral train MODEL --data DATA --out FOLDER [options]

MODEL is one of {models}, or your own as module:Class; or classifier, which
measures the samples of the others. `ancestral train MODEL --help` lists its options."""


def main(arguments: list[str]) -> None:
    """Parse the options of the model named first, and train it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP.format(models=", ".join(row.name for row in rows())))
        return
    name, *rest = arguments
    if name.startswith("-"):
        problem = f"expected the name of a model first, got {name}"
        raise UserError(problem, "write ancestral train MODEL --data … --out …")
    plan = _planned(name, rest)
    default = options_of(plan)
    chosen: Any = parse(type(default), rest, f"train {name}", default)
    _check_kinds(plan, chosen)
    plan = plan.changed(
        model=_as(chosen.model, plan.cls.Config),
        stages={stage: _optimization(getattr(chosen, stage)) for stage in plan.stages},
        preparation=getattr(chosen, plan.preparation.kind),
        options=chosen.options,
    )
    if chosen.print_config:
        print(json.dumps(_sections(plan), indent=2))
        return
    for required in ("data", "out"):
        if getattr(chosen, required) is None:
            source = chosen.data or plan.cls.default_data
            usage = f"write ancestral train {name} --data {source} --out runs/{name.rpartition(':')[2]}"
            raise UserError(f"expected --{required}, got none", usage)
    leads = own_process()[0] == 0  # one of the processes that torchrun started speaks for all
    try:
        run = train(
            plan.cls,
            data=chosen.data,
            out=chosen.out,
            recipe=chosen.recipe,
            config=plan.model,
            stages=plan.stages,
            preparation=plan.preparation,
            options=plan.options,
            start_from=chosen.from_,
            only=chosen.stages,
        )
    except Interrupted as stop:
        if leads:
            print(f"{stop}; go on with: {command()}", flush=True)
        sys.exit(128 + stop.signal)
    if leads:
        path = shlex.quote(str(run.path))
        samples = name not in INSTRUMENTS and _can_sample(run)
        commands = ("sample", "evaluate", "report") if samples else ("evaluate", "report")
        following = " · ".join(f"ancestral {c} {path}" for c in commands)
        print(f"the run {run.path} is complete; next: {following}")


def _can_sample(run: Run) -> bool:
    trained = run.trained
    return {*run.manifest["stages"]} <= {*trained} or run.load_model().can_sample(trained)


def _planned(name: str, arguments: list[str]) -> Plan:
    """What the options that decide the other options say: recipe, run to start from, kinds of parts, file."""
    cls = model_class(name)
    given = {o: take_option(arguments, f"--{o}") for o in ("data", "recipe", "config")}
    bases = take_values(arguments, "--from")
    plan = Plan.of(cls, given["data"], recipe=given["recipe"], start_from=bases)
    plan = _of_kinds(plan, arguments)
    if file := given["config"]:
        data, known = read_json(Path(file)), _sections(plan).keys()
        if not isinstance(data, dict) or not data.keys() <= known:
            got = ", ".join(sorted(data.keys() - known)) if isinstance(data, dict) else type(data).__name__
            problem = f"expected the sections {', '.join(sorted(known))} in {file}, got {got}"
            raise UserError(problem, "see --print-config")
        plan = plan.changed(
            model=data.get("model"),
            stages=data.get("stages"),
            preparation=data.get(plan.preparation.kind),
            options=data.get("options"),
            where=file,
        )
        plan = _of_kinds(plan, arguments)  # flags override the file
    return plan


def _of_kinds(plan: Plan, arguments: list[str]) -> Plan:
    """The plan with parts of the kinds that the arguments name."""
    for field, choices in plan.cls.choices.items():
        if kind := take_option(arguments, f"--model.{field}"):
            kinds = {choice.kind: choice for choice in choices}
            if kind not in kinds:
                problem = f"expected --model.{field} to be one of {', '.join(kinds)}, got {kind}"
                raise UserError(problem, nearest(kind, kinds))
            if getattr(plan.model, field).kind != kind:
                plan = plan.changed(model=dataclasses.replace(plan.model, **{field: kinds[kind]}))
    return plan


def _check_kinds(plan: Plan, chosen: Any) -> None:
    """Raise UserError if a part is of another kind than the parsed options name: for one named twice."""
    for field in plan.cls.choices:
        kind, taken = getattr(chosen, f"{field}_kind"), getattr(plan.model, field).kind
        if kind not in (None, taken):
            raise UserError(f"expected one --model.{field}, got {taken} and {kind}", "name it once")


def _sections(plan: Plan) -> dict[str, Any]:
    """A plan as a file of options."""
    return {
        "model": to_json(plan.model),
        "stages": to_json(plan.stages),
        plan.preparation.kind: to_json(plan.preparation),
        "options": to_json(plan.options),
    }


def options_of(plan: Plan) -> Any:
    """The options of ``ancestral train`` for a model, with the values of the plan."""

    def documented(kind: Any, text: str, metavar: str, name: str | None = None) -> Any:
        return Annotated[kind, shown_as(metavar), tyro.conf.arg(help=text, name=name)]

    recipes = f"Named defaults, one of {', '.join(plan.cls.recipes)}; now {plan.recipe}: {plan.source}."
    source = "digits, fashion-mnist, a folder of images or of sounds, hub:OWNER/NAME, tones, asterisk, "
    source += "gcin-voice or table:FILE."
    source += f" Below are the options of {plan.preparation.kind}; --help beside other --data shows theirs."
    folder = "Run directory; if it holds this run, the training goes on."
    only = "Stages to train, which need those that they build on; if left out all, or with --from those that "
    only += "none of its runs has."
    file = "JSON file of options, as --print-config prints; flags override it."
    start = "Runs whose stages are taken over where not trained, each from the first that has it. Without "
    start += "--stages those are trained that none has; beside one run that has them all, the last."
    ending = tyro.conf.arg(help="Print the options as JSON and end.")
    flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, ending]
    fields: list[tuple[str, Any, Any]] = [
        ("data", documented(str | None, source, "DATA"), None),
        ("out", documented(Path | None, folder, "FOLDER"), None),
        ("recipe", documented(str | None, recipes, "NAME"), None),
        ("config", documented(Path | None, file, "FILE"), None),
        ("from_", documented(tuple[str, ...], start, "RUN [RUN ...]", "from"), ()),
        ("stages", documented(tuple[str, ...], only, "[STAGE [STAGE ...]]"), ()),
        ("print_config", flag, False),
    ]
    for field, choices in plan.cls.choices.items():
        kinds, now = ", ".join(choice.kind for choice in choices), getattr(plan.model, field).kind
        text = f"Kind of {field.replace('_', ' ')}, one of {kinds}; now {now}."
        fields.append((f"{field}_kind", documented(str | None, text, "NAME", f"model.{field}"), None))
    training = Annotated[TrainingOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="training")]
    model = _settled(plan)
    fields += [("options", training, plan.options), ("model", type(model), model)]
    fields.append((plan.preparation.kind, type(plan.preparation), plan.preparation))
    fields += [(name, type(shown := _shown(o)), shown) for name, o in plan.stages.items()]
    made: Any = dataclasses.make_dataclass(
        "Options",
        [(name, kind, _default(value)) for name, kind, value in fields],
        kw_only=True,
        frozen=True,
    )
    row = next((r for r in rows() if r.name == name_of(plan.cls)), None)
    about = f", {row.paper}" if row else f": {plan.cls.__doc__ or 'a model of your own'}"
    made.__doc__ = title(plan.cls) + about
    return made()


def _settled(plan: Plan) -> Any:
    """The model's configuration as an instance of a class whose parts are of the kinds that they are now.

    It is their options that are to be parsed.
    """
    there = plan.model
    kinds = [(f, type(getattr(there, f)), _default(getattr(there, f))) for f in plan.cls.choices]
    made = dataclasses.make_dataclass("Config", kinds, bases=(plan.cls.Config,), kw_only=True, frozen=True)
    made.__doc__ = plan.cls.Config.__doc__
    return _as(there, made)


def _as(config: Any, kind: type[Any]) -> Any:
    """The same values in a dataclass of the same fields."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


def _shown(optimization: Optimization) -> Any:
    """The optimization of a stage as the command line shows it: without phases, or what each phase has."""
    hidden = {"phases"} | ({f.name for f in dataclasses.fields(Updates)} if optimization.phases else set())
    hints = typing.get_type_hints(Optimization, include_extras=True)
    suppressed: Any = tyro.conf.Suppress
    fields = [(n, suppressed[hints[n]], _default(getattr(optimization, n))) for n in hidden]
    fields += [(name, Updates, _default(updates)) for name, updates in optimization.phases.items()]
    options: Any = {"kw_only": True, "frozen": True}
    made = dataclasses.make_dataclass("Optimization", fields, bases=(Optimization,), **options)
    made.__doc__ = "How the stage is optimized."
    values = {f.name: getattr(optimization, f.name) for f in dataclasses.fields(Optimization)}
    return made(**values | dict(optimization.phases))


def _default(value: Any) -> Any:
    return dataclasses.field(default_factory=lambda: value)


def _optimization(shown: Any) -> Optimization:
    """The inverse of ``_shown``."""
    phases = {name: getattr(shown, name) for name in shown.phases}
    return dataclasses.replace(_as(shown, Optimization), phases=phases)
