"""``ancestral sample RUN``."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ancestral.cli.options import Device, Folder, RunName, SamplingOptions, device, file_name, folder, written
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError
from ancestral.sampling import Sampling

_MOST_COLUMNS = 16
_FILMS = ("webp", "gif")
_MOST_ON_SHEET = 1024


@dataclass(frozen=True)
class Options:
    """Draw from a trained model."""

    run: RunName
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Number of samples."""
    labels: Annotated[tuple[str, ...], shown_as("CLASS [CLASS ...]")] = ()
    """Classes by name or number, repeated in turn; else random ones, and in shards all of them in turn."""
    seconds: Annotated[float | None, shown_as("FLOAT")] = None
    """How long sounds are; as long as an example of the training if left out."""
    keep: float = 1.0
    """Of what is drawn of each class, the share that stays: those of which a classifier is surest."""
    gate: Annotated[str | None, shown_as("RUN")] = None
    """That classifier: its run directory or model folder; one of the run's own data if left out."""
    sampling: SamplingOptions = field(default_factory=Sampling)
    seed: int = 0
    """The same seed gives the same samples."""
    interpolate: int = 0
    """Latents that each of the samples goes through, in a film; 0 for none."""
    through: Literal["latents", "classes"] = "latents"
    """Or classes, those of --labels or all in turn, with the same latents."""
    format: Literal["auto", "sheet", "files", "npz", "shards", "webp", "gif"] = "auto"
    """One PNG sheet (sounds as .wav files beside it), a PNG or .wav file each, one .npz with x and labels, or
    a folder of .npz with 1000 samples each; auto: a sheet, and of more than 1024 samples shards. A film is a
    .webp or a .gif."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Sample and write."""
    options = parse(Options, arguments, "sample")
    from ancestral.evaluation import sample
    from ancestral.evaluation.shards import own_device
    from ancestral.evaluation.subject import Subject
    from ancestral.media import write_examples

    place = own_device(device(options.device))
    subject = Subject.find(options.run, place)
    subject.check_trained()
    model = subject.model
    how: dict[str, Any] = {
        "seconds": options.seconds,
        "keep": options.keep,
        "gate": _gate(options, model, place),
        **asdict(options.sampling),
        "seed": options.seed,
        "progress": True,
    }
    where, name = folder(options.run, options.out), _name(options)
    if options.interpolate or options.format in _FILMS or options.through != "latents":
        print(_film(model, options, where / name))
        return
    kind: Any = options.format
    if kind == "auto":
        kind = "sheet" if options.n <= _MOST_ON_SHEET else "shards"
    if kind == "shards":
        _sample_shards(model, options, options.out or where / name, how)
        return
    x, labels = sample(model, options.n, options.labels, **how)
    columns, heads = _by_class(model, options.n, labels, len(options.labels))
    names = model.columns.names if model.columns else ()
    shown: dict[str, Any] = {"names": names, "columns": columns, "heads": heads}
    print(written(write_examples(where, name, x, model.spec, labels, kind=kind, **shown)))


def _film(model: Any, options: Options, path: Path) -> Path:
    """Write a film of samples that change into each other."""
    from ancestral.evaluation.film import film
    from ancestral.media import frames, write_film

    kind = "webp" if options.format == "auto" else options.format
    if kind not in _FILMS or not options.interpolate:
        problem = (
            f"expected --interpolate with the format webp or gif, got {options.interpolate or 'none'}, {kind}"
        )
        raise UserError(problem, "try --interpolate 4")
    unfit = {*options.sampling.changes()} - {"temperature"} | ({"keep"} if options.keep != 1 else set())
    unfit |= {"seconds"} if options.seconds is not None else set()
    if unfit:
        raise UserError(f"expected no {min(unfit).replace('_', '-')} for a film, got one", "leave it out")
    shown = film(
        model,
        options.n,
        options.labels,
        stops=options.interpolate,
        through=options.through,
        temperature=options.sampling.temperature,
        seed=options.seed,
        progress=True,
    )
    name = f"{path.name}-film{options.interpolate}{'-classes' if options.through == 'classes' else ''}.{kind}"
    return write_film(path.with_name(name), frames(model.spec, shown))


def _sample_shards(model: Any, options: Options, out: Path, how: dict[str, Any]) -> None:
    """Draw this process's share of the shards; the first of several says where."""
    from ancestral.cli.processes import take_part
    from ancestral.evaluation import sample_shards

    leads = take_part()
    sample_shards(model, options.n, out, options.labels, **how)
    if leads:
        print(out)


def _gate(options: Options, model: Any, place: Any) -> Any:
    """The classifier that rejects samples; None if all are kept."""
    from ancestral.evaluation.rejection import Gate, check_keep
    from ancestral.runs import Run, load

    check_keep(model, options.keep)  # before a classifier is trained
    if options.keep == 1:
        return None
    if options.gate is None:
        from ancestral.training import classifier_of

        if model.spec.domain != "image":
            problem = f"expected a model of images for --keep, got one of {model.spec.domain}"
            raise UserError(problem, "name a classifier with --gate, or leave it out")
        if not (Path(options.run) / "run.json").is_file():
            problem = f"expected a classifier for --keep, got none, and {options.run} is not a run with data"
            raise UserError(problem, "name one with --gate")
        return classifier_of(Run.open(options.run).load_data(), role="gate", progress=True).to(place)
    gate = load(options.gate, place)
    if not isinstance(gate, Gate):
        problem = f"expected a classifier in {options.gate}, got a {type(gate).__name__}"
        raise UserError(problem, "leave --gate out for one of the run's own data")
    return gate


def _name(options: Options) -> str:
    """What the samples are called: by all options on which they depend, but their number."""
    how = options.sampling
    name = f"samples-seed{options.seed}"
    name += f"-{options.seconds:g}s" if options.seconds is not None else ""
    short = {"temperature": "t", "top_k": "top", "top_p": "p", "truncation": "truncated"}
    for option, value in how.changes().items():
        name += f"-{short[option]}" + "-".join(
            "all" if v is None else f"{v:g}" for v in (value if isinstance(value, tuple) else [value])
        )
    name += f"-keep{options.keep:g}" if options.keep != 1 else ""
    if options.labels:
        name += "-class" + "-".join(map(file_name, options.labels))
    return name


def _by_class(model: Any, n: int, labels: Any, given: int) -> tuple[int | None, list[str]]:
    """How many columns a sheet has for each of the given classes to fill its own, and their names."""
    if not 1 < given <= min(n, _MOST_COLUMNS):
        return None, []
    columns = given * max(1, round(math.sqrt(n) / given))
    numbers = labels[: min(n, columns)].tolist()
    return len(numbers), [model.classes[i] if model.classes else str(i) for i in numbers]
