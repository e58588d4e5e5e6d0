"""Samples of a trained model, in batches, as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset, ImageOptions
from ancestral.data.sheets import sheet, to_pixels, write_png
from ancestral.distributions.discrete import check_sampling
from ancestral.errors import UserError
from ancestral.evaluation.batches import bar
from ancestral.evaluation.subject import Subject, Trained
from ancestral.files import replacing
from ancestral.model import Completes, DrawsInOrder, Model, broadcast_known
from ancestral.spec import Spec

_BATCH = 64


def sample(
    model: Trained,
    n: int = 64,
    labels: Sequence[int] = (),
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Draw ``n`` examples in batches: integers ``(n, *shape)`` on the CPU, and their labels ``(n,)`` if any were given.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many.
        labels: classes, repeated in turn until there are ``n``; without them the model draws classes at random.
        temperature: 1 samples the model; lower values give likelier, less diverse samples.
        top_k: draw from the k likeliest levels of each value (models that draw values in order).
        top_p: draw from the likeliest levels that together reach probability p (the same models).
        seed: the same seed gives the same samples on the same machine.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: n < 1, a temperature, top_k or top_p out of its range or not for this model, labels that it does not draw by.
    """
    if n < 1:
        raise UserError(f"expected at least 1 sample, got {n}", "raise --n")
    check_sampling(temperature, top_k, top_p)
    network = Subject.find(model, device).model
    network.check_trained()
    classes = None
    if labels:
        classes = torch.tensor(labels).repeat(-(-n // len(labels)))[:n]
        network.check_labels(classes, n)
    options: dict[str, Any] = {
        "temperature": temperature,
        "generator": torch.Generator(network.device).manual_seed(check_seed(seed)),
    }
    if isinstance(network, DrawsInOrder):
        options |= {"top_k": top_k, "top_p": top_p}
    elif top_k is not None or top_p is not None:
        raise UserError(
            f"expected no top-k or top-p, got one: {type(network).__name__} draws no values in order",
            "use temperature",
        )
    given = {} if classes is None else {"labels": classes}
    return _in_batches(network, n, given, options, what="sampling", show=progress), classes


@torch.no_grad()
def complete(
    model: Trained,
    data: Dataset | Tensor | str | None = None,
    known: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    split: str = "test",
    n: int | None = 16,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    images: ImageOptions | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Examples of a split, and the same with the values that are not known drawn anew: integers ``(n, *shape)`` both, on the CPU.

    Each value is drawn given all that come before it in raster order; known ones that come later have no influence.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples ``(N, *shape)``; a run's own data if None.
        known: which values stay, boolean, broadcast to ``(n, *shape)``; the upper half if None.
        labels: classes ``(n,)`` for a model that draws by class; those of the run's own data, and random ones for other data, if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        n: how many examples, from the first on; all if None.
        temperature: 1 samples the model; lower values give likelier, less diverse samples.
        top_k: draw from the k likeliest levels of each value.
        top_p: draw from the likeliest levels that together reach probability p.
        seed: the same seed gives the same values on the same machine.
        images: how the images of a source are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model does not complete, the data do not fit it, or an argument is out of its range or of another shape.
    """
    check_sampling(temperature, top_k, top_p)
    subject = Subject.find(model, device)
    network = subject.model
    if not isinstance(network, Completes):
        problem = f"expected a model that completes examples, got {type(network).__name__}"
        raise UserError(problem, "train an autoregressive model: ancestral train pixelcnnpp")
    network.check_trained()
    examples = subject.examples(data, split, n, images)
    if known is None:
        known = upper_rows(network.spec, network.spec.shape[1] // 2)
    given = {"x": examples.x, "known": broadcast_known(known, tuple(examples.x.shape))}
    if (
        labels is None and data is None and network.sample_classes
    ):  # other data may mean other things by the same numbers
        labels = examples.labels
    if labels is not None:
        network.check_labels(labels, len(examples.x))
        given["labels"] = labels
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
    return examples.x, _in_batches(network, len(examples.x), given, options, what="completing", show=progress)


def upper_rows(spec: Spec, rows: int) -> Tensor:
    """The values of the first rows, as ``complete`` takes them: boolean, of the spec's shape. Raises UserError if none is left to draw."""
    if not 0 <= rows < spec.shape[1]:
        raise UserError(
            f"expected to keep 0..{spec.shape[1] - 1} rows, got {rows}", "leave at least one row to draw"
        )
    return (torch.arange(spec.shape[1]) < rows).view(-1, *[1] * (len(spec.shape) - 2)).expand(spec.shape)


def _in_batches(
    network: Model, n: int, given: Mapping[str, Tensor], options: Mapping[str, Any], *, what: str, show: bool
) -> Tensor:
    """``network.sample`` of ``n`` examples, ``given`` an entry for each, a batch after another, with a progress bar."""
    parts = []
    with bar(what, show=show) as advance:
        for start in range(0, n, _BATCH):
            size = min(_BATCH, n - start)
            here: dict[str, Any] = {
                name: value[start : start + size].to(network.device) for name, value in given.items()
            }
            if isinstance(network, DrawsInOrder):
                here["progress"] = lambda share, start=start, size=size: advance((start + share * size) / n)
            parts.append(network.sample(size, **here, **options).cpu())
            advance((start + size) / n)
    return torch.cat(parts)


def check_seed(seed: int) -> int:
    """The seed. Raises UserError unless torch takes it."""
    if not 0 <= seed < 2**63:
        raise UserError(f"expected a seed of 0 or more, below 2^63, got {seed}", "try 0")
    return seed


def write_images(
    folder: str | Path,
    name: str,
    x: Tensor,
    model: Model,
    labels: Tensor | None = None,
    *,
    kind: Literal["sheet", "files", "npz"] = "sheet",
) -> Path:
    """Write images as one PNG sheet, as a PNG file each, or as one ``.npz`` with ``x`` and ``labels``; where they are."""
    folder = Path(folder)
    if kind == "npz":
        path = folder / f"{name}.npz"
        arrays = {"x": x.numpy()} | ({"labels": labels.numpy()} if labels is not None else {})
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return path
    if kind == "files":
        digits = len(str(len(x) - 1))
        for i, image in enumerate(to_pixels(x, model.spec)):
            write_png(folder / name / f"{name}-{i:0{digits}d}.png", image, enlarge=False)
        return folder / name
    write_png(folder / f"{name}.png", sheet(x, model.spec))
    return folder / f"{name}.png"
