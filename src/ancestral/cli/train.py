"""``ancestral train MODEL --data … --out …``."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from ancestral.cli.parse import parse, shown_as, take_option
from ancestral.configuration import from_json, to_json
from ancestral.data import ImageOptions
from ancestral.errors import UserError, nearest
from ancestral.files import read_json
from ancestral.model import Model
from ancestral.recipe import Optimization
from ancestral.runs import Run, command
from ancestral.taxonomy import TAXONOMY, model_class, name_of, row
from ancestral.training import Interrupted, TrainingOptions, train
from ancestral.training.begin import find_recipe

_HELP = """usage: ancestral train MODEL --data DATA --out FOLDER [options]

MODEL is one of {models}; `ancestral train MODEL --help` lists its options."""


def main(arguments: list[str]) -> None:
    """Parse the options of the model named first, and train it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP.format(models=", ".join(row.name for row in TAXONOMY if row.path)))
        return
    name, *rest = arguments
    if name.startswith("-"):
        raise UserError(
            f"expected the name of a model first, got {name}", "write ancestral train MODEL --data … --out …"
        )
    cls = model_class(name)
    default = _default(cls, rest)
    options: Any = parse(type(default), rest, f"train {name}", default)
    config = _convert(options.model, cls.Config)
    stages = {field: getattr(options, field) for field in find_recipe(cls, options.recipe)[1].stages}
    if options.print_config:
        print(
            json.dumps(
                {
                    "model": to_json(config),
                    "stages": to_json(stages),
                    "images": to_json(options.images),
                    "options": to_json(options.options),
                },
                indent=2,
            )
        )
        return
    for required in ("data", "out"):
        if getattr(options, required) is None:
            raise UserError(
                f"expected --{required}, got none",
                f"write ancestral train {name} --data digits --out runs/{name}",
            )
    leads = os.environ.get("RANK", "0") == "0"  # one of the processes that torchrun started speaks for all
    try:
        run = train(
            name, data=options.data, out=options.out, recipe=options.recipe, config=config, stages=stages,
            images=options.images, options=options.options, start_from=options.from_,
        )  # fmt: skip
    except Interrupted as stop:
        if leads:
            print(f"{stop}; go on with: {command()}", flush=True)
        sys.exit(128 + stop.signal if stop.signal in (signal.SIGINT, signal.SIGTERM) else 1)
    if leads:
        print(
            f"the run {run.path} is complete; next: {' · '.join(f'ancestral {c} {run.path}' for c in ('sample', 'evaluate', 'report'))}"
        )


def _settled(config: Any, cls: type[Model]) -> Any:
    """A configuration as an instance of a class whose parts are of the models that they are now: their options are those to parse."""
    narrowed = [
        (field, type(getattr(config, field)), dataclasses.field(default=getattr(config, field)))
        for field in cls.parts
    ]
    made = dataclasses.make_dataclass("Config", narrowed, bases=(cls.Config,), kw_only=True, frozen=True)
    made.__doc__ = cls.Config.__doc__
    return _convert(config, made)


def _convert(config: Any, kind: type[Any]) -> Any:
    """The same values in a dataclass of the same fields."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


def _default(cls: type[Model], arguments: list[str]) -> Any:
    """The options of ``ancestral train`` for a model, with the values of the recipe, the configuration file and the run of ``--from``."""
    recipe_name, recipe = find_recipe(cls, take_option(arguments, "--recipe"))
    model, stages, images, training = recipe.model, dict(recipe.stages), ImageOptions(), TrainingOptions()
    if start := take_option(arguments, "--from"):
        base = Run.open(start)
        if model_class(base.model_name) is not cls:
            raise UserError(
                f"expected a run of the same model for --from, got {base.model_name}", "choose another run"
            )
        model, images = from_json(cls.Config, base.manifest["config"], where="model"), base.images
    for field, kinds in cls.parts.items():
        if kind := take_option(arguments, f"--{field}-model"):
            if kind not in kinds:
                raise UserError(
                    f"expected --{field}-model to be one of {', '.join(kinds)}, got {kind}",
                    nearest(kind, kinds),
                )
            if not isinstance(getattr(model, field), type(kinds[kind])):
                model = dataclasses.replace(model, **{field: kinds[kind]})
    if file := take_option(arguments, "--config"):
        data = read_json(Path(file))
        known = {"model", "stages", "images", "options"}
        if not isinstance(data, dict) or not data.keys() <= known:
            got = ", ".join(sorted(data.keys() - known)) if isinstance(data, dict) else type(data).__name__
            raise UserError(
                f"expected the sections {', '.join(sorted(known))} in {file}, got {got}", "see --print-config"
            )
        model = from_json(cls.Config, data.get("model", {}), where="model", base=model)
        images = from_json(ImageOptions, data.get("images", {}), where="images", base=images)
        training = from_json(TrainingOptions, data.get("options", {}), where="options", base=training)
        changes = data.get("stages", {})
        if not isinstance(changes, dict):
            raise UserError(f"expected stages by name in {file}, got {changes!r}", "see --print-config")
        for stage, values in changes.items():
            if stage not in stages:
                raise UserError(
                    f"expected a stage of the model in {file}, got {stage}", nearest(stage, stages)
                )
            stages[stage] = from_json(Optimization, values, where=f"stages.{stage}", base=stages[stage])

    def documented(kind: Any, text: str, metavar: str, name: str | None = None) -> Any:
        return Annotated[kind, shown_as(metavar), tyro.conf.arg(help=text, name=name)]

    fields: list[tuple[str, Any, Any]] = [
        (
            "data",
            documented(str | None, "digits, fashion-mnist, a folder of images, or hub:OWNER/NAME.", "DATA"),
            None,
        ),
        (
            "out",
            documented(Path | None, "Run directory; if it holds this run, the training goes on.", "FOLDER"),
            None,
        ),
        (
            "recipe",
            documented(
                str | None,
                f"Named defaults, one of {', '.join(cls.recipes)}; now {recipe_name}: {recipe.source}.",
                "NAME",
            ),
            None,
        ),
        (
            "config",
            documented(
                Path | None, "JSON file of options, as --print-config prints; flags override it.", "FILE"
            ),
            None,
        ),
        (
            "from_",
            documented(
                Path | None,
                "Run whose stages before the last are taken over; only the last is trained.",
                "RUN",
                "from",
            ),
            None,
        ),
        (
            "print_config",
            Annotated[
                bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print the options as JSON and end.")
            ],
            False,
        ),
    ]
    for field, kinds in cls.parts.items():
        help_text = f"Which model the {field} is, one of {', '.join(kinds)}."
        fields.append((f"{field}_model", documented(str | None, help_text, "NAME"), None))
    fields += [
        (
            "options",
            Annotated[TrainingOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="training")],
            training,
        )
    ]
    model = _settled(model, cls)
    fields += [
        ("model", type(model), model),
        ("images", ImageOptions, images),
        *((name, Optimization, o) for name, o in stages.items()),
    ]
    made: Any = dataclasses.make_dataclass(
        "Options",
        [(name, kind, dataclasses.field(default=value)) for name, kind, value in fields],
        kw_only=True,
        frozen=True,
    )
    about = row(name_of(cls))
    made.__doc__ = f"{about.title}, {about.paper}"
    return made()
