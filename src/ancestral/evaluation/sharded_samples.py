"""Samples in any number, as shards on disk: drawn by one process or several, and gone on with when killed.

Shard k is a function of (seed, k), the model and the options, and of nothing else: not of the shards before
it, nor of which process draws it.
"""

import io
import math
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.columns import Columns
from ancestral.configuration import Configuration, Count, Natural
from ancestral.errors import UserError
from ancestral.evaluation.lengths import long_enough, samples_of
from ancestral.evaluation.rejection import KEEP, Gate, candidates, check_gate, check_keep, surest
from ancestral.evaluation.sampling import check_seed, draw
from ancestral.evaluation.shards import MANIFEST, begin, check_same, own_device
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.files import Damaged, check_readable, replacing
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.processes import own_process
from ancestral.progress import bar
from ancestral.records import read_record
from ancestral.sampling import PerLevel, Sampling
from ancestral.spec import Spec
from ancestral.taxonomy import name_of
from ancestral.training.randomness import derive
from ancestral.weights import state_checksum

_SHARD = 1000
_NAME = re.compile(r"shard-(\d{5,})\.npz")
_HEADER = 2**12
"""Bytes that an array in a shard may take beside its values."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Configuration):
    """What a set of samples depends on: ``manifest.json``. Processes and times make no difference to it."""

    n: Count
    """Examples in all."""
    shard: Count
    """Examples of a shard; the last may have fewer."""
    batch: Count
    """Examples that are drawn at once, on which the random numbers of each depend."""
    seed: Natural
    sampling: Sampling
    labels: tuple[Natural, ...]
    """Example i of the whole set has the class ``labels[i % len(labels)]``; none if classes are not known."""
    keep: Annotated[float, KEEP]
    """Of each class in each shard, the share of the candidates that stays."""
    gate: str | None
    """Checksum of the weights of the classifier that chose; none if all stay."""
    model: str
    """As commands call it."""
    weights: str
    """Checksum of its weights."""
    spec: Spec
    columns: Columns | None = None
    """Of a table, whose rows are as a file has them."""
    seconds: float | None = None
    """How long sounds were asked to be; as in the training if none were asked for."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.n // self.shard)

    def size(self, k: int) -> int:
        """Examples of shard k."""
        return min(self.shard, self.n - k * self.shard)

    def classes(self, k: int, size: int) -> Tensor | None:
        """The classes of the first ``size`` examples of shard k; None if they are not known."""
        if not self.labels:
            return None
        places = torch.arange(k * self.shard, k * self.shard + size)
        return torch.tensor(self.labels)[places % len(self.labels)]

    def command(self, path: Path) -> str:
        """The command that draws this set, without the names of the model and of the gate."""
        words = ["ancestral", "sample", "RUN", "-n", str(self.n)]
        if self.labels != tuple(range(self.spec.classes)):
            words += ["--labels", *map(str, self.labels)] if self.labels else []
        for field in fields(Sampling):
            if (value := getattr(self.sampling, field.name)) != field.default:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{field.name.replace('_', '-')}", ",".join(map(str, values))]
        words += ["--seconds", f"{self.seconds:g}"] if self.seconds is not None else []
        words += ["--keep", str(self.keep)] if self.keep < 1 else []
        words += ["--seed", str(self.seed)] if self.seed else []
        return shlex.join([*words, "--format", "shards", "--out", str(path)])


@dataclass(frozen=True)
class Shards:
    """A set of samples on disk. Its length is that of all shards together; it iterates over the shards."""

    path: Path
    manifest: Manifest

    def __len__(self) -> int:
        return self.manifest.n

    def __iter__(self) -> Iterator[Batch]:
        """One shard after another, each with x and, where they are known, labels, on the CPU.

        Raises UserError for a shard that is missing or damaged.
        """
        for k in range(self.manifest.shards):
            try:
                yield _read(self.path, self.manifest, k)
            except Damaged as error:
                raise UserError(error.problem, f"mend it with: {self.manifest.command(self.path)}") from None

    def batch(self) -> Batch:
        """All examples, on the CPU.

        Raises UserError for more than the memory holds, or for a shard that is missing or damaged.
        """
        spec = self.manifest.spec
        size = len(self) * spec.dims * spec.dtype.itemsize
        check_room(size, f"{len(self)} samples", "go through the shards one by one")
        return Batch.cat(self)


def read_shards(path: str | Path) -> Shards:
    """The set of samples in a folder. What its shards hold is checked as they are read.

    Raises:
        UserError: there is none, or it lacks shards (the command that draws them is named).
    """
    path = Path(path)
    manifest = read_record(Manifest, path / MANIFEST)
    numbers = (_NAME.fullmatch(file.name) for file in path.iterdir())
    there = sum(int(number[1]) < manifest.shards for number in numbers if number)
    if there < manifest.shards:
        problem = f"expected {manifest.shards} shards in {path}, got {there}"
        raise UserError(problem, f"go on with: {manifest.command(path)}")
    return Shards(path, manifest)


@undisturbed
def sample_shards(
    model: Trained,
    n: int,
    out: str | Path,
    labels: Sequence[int | str] = (),
    *,
    seconds: float | None = None,
    keep: float = 1.0,
    gate: Gate | None = None,
    temperature: PerLevel[float] = 1.0,
    top_k: PerLevel[int | None] = None,
    top_p: PerLevel[float | None] = None,
    truncation: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Shards:
    """Draw ``n`` examples into shards of 1,000 in the folder ``out``; no more than a shard is in memory.

    The same call again goes on: whole shards stay, damaged ones are drawn anew. So does a call with a larger
    ``n``, whose first examples are the same; only with ``keep`` below 1 is a last, shorter shard another one.
    Processes that torchrun started share the shards, and each returns when its own are there. With as many
    threads each, they draw what one process draws.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many.
        out: a new or an empty folder, or that of the same samples.
        labels: classes by number or by name, repeated in turn; without them all classes in turn, if the model
            draws by class.
        seconds: how long sounds are, of a model of sounds of any length; as long as in its training if None.
        keep: of each class in each shard, the share of what is drawn that stays: those of which the gate is
            surest.
        gate: the classifier that ``keep`` below 1 asks.
        temperature: 1 samples the model; lower values give likelier, less diverse samples. It and the next
            two may have a value for each level of a model with levels of codes, coarse to fine; of top_k
            and top_p None leaves a level alone.
        top_k: draw from the k likeliest levels of each value (models that draw values in order).
        top_p: draw from the likeliest levels that together reach probability p (the same models).
        truncation: keep the latents this near to their mean (models that say so).
        seed: the same seed gives the same samples on the same machine.
        device: where to compute; where a model is, else on the CPU, if None. Of several GPUs ``cuda`` is the
            one of this process's number.
        progress: show a progress bar.

    Raises:
        UserError: n < 1, an option out of its range or not for this model, unfit labels or gate, or a folder
            that holds other samples (what differs is named), more of them, or something else.
    """
    rank, world = own_process()
    subject = Subject.find(model, None if device is None else own_device(device))
    subject.check_trained()
    length = None if seconds is None else samples_of(subject.model, seconds)
    network = subject.model if length is None else long_enough(subject.model, length)
    network.spec.check_contexts((), n)
    check_keep(network, keep)
    chosen = None if keep == 1 else check_gate(network, gate)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, truncation=truncation)
    network.check_sampling(sampling)
    if n < 1:
        raise UserError(f"expected at least 1 sample, got {n}", "raise --n")
    names = [labels] if isinstance(labels, str) else labels
    manifest = Manifest(
        n=n,
        shard=_SHARD,
        batch=min(max(2**22 // network.spec.dims, 16), 256),
        seed=check_seed(seed),
        sampling=sampling,
        labels=tuple(network.classes_of(names).tolist() if len(names) else range(network.sample_classes)),
        keep=float(keep),
        gate=None if chosen is None else _checksum(chosen),
        model=name_of(type(network)),
        weights=_checksum(network),
        spec=network.spec if length is None else network.spec.at_length(length),
        columns=network.columns,
        seconds=None if seconds is None else float(seconds),
    )
    out = Path(out)
    begin(out, manifest, _check_same)
    own = range(rank, manifest.shards, world)
    with bar("sampling", show=progress) as tell:
        for done, k in enumerate(own):

            def advance(share: float, done: int = done) -> None:
                tell((done + share) / len(own))

            try:
                _read(out, manifest, k)
            except Damaged:
                _write(out, manifest, k, _draw(network, manifest, k, chosen, advance))
            advance(1.0)
    return Shards(out, manifest)


def _checksum(weights: object) -> str:
    """The checksum of a module's state, by which it is known again."""
    if not isinstance(weights, nn.Module):
        problem = f"expected a gate with weights, by which to know it again, got a {type(weights).__name__}"
        raise UserError(problem, "make it an nn.Module")
    return state_checksum(weights)


def _check_same(out: Path, before: Manifest, manifest: Manifest) -> None:
    """Raise UserError unless the samples of a folder are those of the manifest, or the first of them."""
    how = "with other options"
    check_same(out, before, manifest, what="samples", how=how, but=("n",), prefix="sampling.")
    if before.n > manifest.n:
        problem = f"expected at least the {before.n} samples of {out}, got {manifest.n}"
        raise UserError(problem, "raise --n or choose another --out")


def _name(k: int) -> str:
    return f"shard-{k:05d}.npz"


def _draw(
    network: Model, manifest: Manifest, k: int, gate: Gate | None, advance: Callable[[float], None]
) -> Tensor:
    """The examples of shard k, on the CPU."""
    generator = torch.Generator(network.device).manual_seed(derive(manifest.seed, "shard", k))
    size = manifest.size(k)
    wanted = manifest.classes(k, size)

    def parts(n: int, classes: Tensor | None) -> Iterator[Tensor]:
        how: dict[str, Any] = {"generator": generator, "advance": advance, "size": manifest.batch}
        length = None if manifest.seconds is None else manifest.spec.shape[-1]
        return draw(network, n, classes, manifest.sampling, **how, length=length)

    if gate is not None and wanted is not None:
        classes = candidates(wanted, manifest.keep)
        return surest(gate, parts(len(classes), classes), classes, wanted)
    # Whole batches, of which the last is cut: a short shard is the beginning of the full one.
    n = min(-(-size // manifest.batch) * manifest.batch, manifest.shard)
    return torch.cat(list(parts(n, manifest.classes(k, n))))[:size]


def _write(out: Path, manifest: Manifest, k: int, x: Tensor) -> None:
    manifest.spec.check(x)
    classes = manifest.classes(k, len(x))
    arrays = {"x": x.to(manifest.spec.dtype).numpy()}
    arrays |= {} if classes is None else {"labels": classes.numpy()}
    with replacing(out / _name(k)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy takes the names for allow_pickle


def _read(out: Path, manifest: Manifest, k: int) -> Batch:
    """Shard k, all that it holds checked: against the sums that a zip file has, and what the manifest says.

    Raises:
        Damaged: it is missing, torn, or of other examples.
        UserError: it may not be read.
    """
    path, size = out / _name(k), manifest.size(k)
    check_readable(path)
    classes = manifest.classes(k, size)
    expected = {"x": ((size, *manifest.spec.shape), _dtype(manifest.spec.dtype))}
    expected |= {} if classes is None else {"labels": ((size,), _dtype(classes.dtype))}
    try:
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in expected):
                raise ValueError(f"it holds {', '.join(archive.namelist())}")
            arrays = {name: _array(archive, name, *form) for name, form in expected.items()}
        batch = Batch.of({name: torch.from_numpy(array) for name, array in arrays.items()})
        manifest.spec.check(batch.x, batch.labels)
        if classes is not None and batch.labels is not None and not torch.equal(batch.labels, classes):
            raise ValueError("its labels are others")
    except Exception as error:  # zipfile, zlib and NumPy raise nearly every type on broken bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"expected {size} samples in {path}, got a file that is damaged ({reason})"
        raise Damaged(problem, "draw it anew") from None
    return batch


def _array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]"
) -> NDArray[Any]:
    """An array of a shard. Raises ValueError unless it has this shape and dtype."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > math.prod(shape) * dtype.itemsize + _HEADER:
        raise ValueError(f"{name} takes {entry.file_size:,} bytes")
    array = np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    return array


def _dtype(dtype: torch.dtype) -> "np.dtype[Any]":
    """NumPy's name for a dtype."""
    return torch.empty(0, dtype=dtype).numpy().dtype
