"""``ancestral project RUN IMAGE``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ancestral.cli.options import DataName, Device, Folder, RunName, device, folder
from ancestral.cli.parse import parse, shown_as
from ancestral.configuration import Count

Images = Annotated[
    tuple[Path, ...], tyro.conf.Positional, shown_as("IMAGE"), tyro.conf.arg(help="Files of images.")
]
Classes = Annotated[
    tuple[str, ...],
    shown_as("CLASS"),
    tyro.conf.arg(help="Their classes by name or number, repeated in turn; else all are tried."),
]


@dataclass(frozen=True)
class Options:
    """Find the latents of images: those whose images are nearest."""

    run: RunName
    images: Images
    labels: Classes = ()
    data: DataName = None
    features: Annotated[str, shown_as("NAME")] = "auto"
    """Network whose features count: classifier (the data set's own, trained once), imagenet, a file of
    Inception's weights, the run of a classifier, or none; auto: the classifier of data with classes."""
    steps: Count = 300
    """Steps of the descent."""
    starts: Count = 4
    """Draws that latents begin at; styles begin at their mean."""
    seed: int = 0
    """Of draws and noise."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Project and write."""
    options = parse(Options, arguments, "project")
    import numpy as np
    import torch

    from ancestral.data.load import load_image
    from ancestral.errors import UserError
    from ancestral.evaluation.projection import MOST_CLASSES, as_renderer, project
    from ancestral.evaluation.sampling import repeated
    from ancestral.evaluation.subject import Subject
    from ancestral.files import replacing
    from ancestral.media import picture, write_png

    if not options.images:
        problem = "expected images to project, got none"
        raise UserError(problem, "name them before the options: ancestral project RUN a.png --labels 1")
    subject = Subject.find(options.run, device(options.device))
    # What cannot be is refused before a classifier is trained.
    repeated(as_renderer(subject.model), options.labels, len(options.images))
    spec = subject.model.spec
    found = [load_image(path, spec) for path in options.images]
    for path, (_, note) in zip(options.images, found, strict=True):
        if note:
            print(f"{path}: {note}")
    if subject.model.sample_classes > MOST_CLASSES and not options.labels:
        print(
            f"trying the first {MOST_CLASSES} of {subject.model.sample_classes} classes: name it by --labels"
        )
    x = torch.stack([image for image, _ in found])
    extractor = _extractor(options, subject)
    how: dict[str, Any] = {"steps": options.steps, "starts": options.starts, "seed": options.seed}
    result = project(subject.model, x, options.labels, extractor=extractor, **how, progress=True)
    names = subject.model.classes if result.labels is not None else ()
    for i, path in enumerate(options.images):
        said = [f"{result.psnr[i]:.1f} dB PSNR"]
        if extractor is not None:
            said.append(f"{result.distance[i]:.4f} apart in the features of {extractor.name}")
        if result.labels is not None:
            label = int(result.labels[i])
            said.insert(0, names[label] if names else f"class {label}")
        print(f"{path}: {', '.join(said)}")
    path = folder(options.run, options.out) / "projections.png"
    strips = torch.cat([x.unsqueeze(1), result.way, result.images.unsqueeze(1)], 1)
    write_png(path, picture(spec, strips.flatten(0, 1), columns=strips.shape[1]))
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {"vectors": result.vectors, "distance": result.distance, "psnr": result.psnr}
        arrays |= {"labels": result.labels} if result.labels is not None else {}
        np.savez(file, **arrays)
    print(path)


def _extractor(options: Options, subject: Any) -> Any:
    """The network whose features count, if any."""
    from ancestral.evaluation.extractors import Extractor

    known = subject.run is not None or options.data is not None
    classes = subject.model.spec.classes > 1 and known
    name = ("classifier" if classes else "none") if options.features == "auto" else options.features
    if name == "none":
        return None
    return Extractor.find(name, subject.dataset(options.data), subject.model.device, progress=True)
