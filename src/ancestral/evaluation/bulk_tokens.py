"""Code maps of any number of examples, as shards: by one process or several, and gone on with when killed."""

import hashlib
from pathlib import Path

import torch

from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Preparation
from ancestral.data.pictures import SPLITS
from ancestral.errors import UserError
from ancestral.evaluation.code_shards import (
    CodeShards,
    CodesManifest,
    Level,
    check_same_codes,
    parquet,
    printable,
    read_shard,
    write_shard,
)
from ancestral.evaluation.shards import begin, own_device, own_process
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.evaluation.tokens import as_tokenizer, encode
from ancestral.files import Damaged
from ancestral.progress import bar
from ancestral.stages import owned
from ancestral.taxonomy import name_of
from ancestral.weights import state_checksum

_SHARD = 10_000
"""Some megabytes of codes (12 of 32x32 maps of 512 codes), and as much work as a kill costs at most."""
_CHUNK = 500
"""Examples after which progress is told. They are whole batches on every device, so that codes are those of
``tokenize``."""


@undisturbed
@torch.no_grad()
def tokenize_shards(
    model: Trained,
    out: str | Path,
    data: Dataset | str | None = None,
    *,
    split: str = "train",
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> CodeShards:
    """The code maps of a split, as Parquet shards of 10,000 in the folder ``out``.

    ``datasets.load_dataset(out)`` opens it: columns ``level0``, ``level1``, … (coarse to fine), ``label`` if
    the data have classes, ``name`` if the examples have names. No more than a shard is in memory.

    The same call again goes on: whole shards stay, damaged ones are made anew. Processes that torchrun
    started share the shards, and each returns when its own are there.

    Args:
        model: a model, a run or its directory, or a Hub name.
        out: a new or an empty folder, or that of the same codes.
        data: a data set, or its source; a run's own data if None.
        split: ``train``, ``validation``, ``test``, or ``all`` for each of the three as a split of its own.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None. Of several GPUs ``cuda`` is the
            one of this process's number.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, the data do not fit it, the package ``datasets`` is missing, or
            the folder holds other codes (what differs is named) or something else.
    """
    rank, world = own_process()
    subject = Subject.find(model, None if device is None else own_device(device))
    tokenizer = as_tokenizer(subject.model)
    parquet()
    dataset, out = subject.dataset(data, preparation), Path(out)
    manifest = _manifest(tokenizer, dataset, split)
    begin(out, manifest, check_same_codes)
    own, done = manifest.parts()[rank::world], 0
    with bar("tokenizing", total=sum(part.size for part in own), show=progress) as tell:
        for part in own:
            try:
                read_shard(out, manifest, part)
            except Damaged:
                rows = slice(part.first, part.first + part.size)
                examples = dataset.split(part.split)[rows]
                chunks = []
                for x in examples.x.split(_CHUNK):
                    chunks.append(encode(tokenizer, x, show=False))
                    tell(done + sum(len(levels[0]) for levels in chunks))
                levels = [torch.cat(maps) for maps in zip(*chunks, strict=True)]
                labels = examples.labels if manifest.classes else None
                names = None if manifest.names is None else dataset.names[part.split][rows]
                write_shard(out, manifest, part, levels, labels=labels, names=names)
            done += part.size
            tell(done)
    return CodeShards(out, manifest)


def codes_checksum(tokenizer: Tokenizer) -> str:
    """Checksum of the weights that make codes and decode them.

    What later stages train on prepared data, which are codes, is not among them: with another prior the codes
    are the same.
    """
    stages = tokenizer.stages()
    priors = [stage for stage in stages[1:] if stage.prepare is not None]
    of_priors, of_others = (
        owned(tokenizer, [module for stage in some for module in stage.modules])
        for some in (priors, [stage for stage in stages if stage not in priors])
    )
    return state_checksum(tokenizer, tokenizer.state_dict().keys() - (of_priors - of_others))


def _manifest(tokenizer: Tokenizer, dataset: Dataset, split: str) -> CodesManifest:
    """What the folder will hold. Raises UserError for a split that there is not, or without examples."""
    wanted = SPLITS if split == "all" else (split,)
    parts = {name: part for name in wanted if len(part := dataset.split(name))}
    if not parts:
        raise UserError(f"expected at least 1 example in {split}, got none", "choose another split")
    labeled = dataset.spec.classes > 0 and all(part.labels is not None for part in parts.values())
    return CodesManifest(
        levels=tuple(map(Level.of, tokenizer.code_specs())),
        splits={name: len(part) for name, part in parts.items()},
        shard=_SHARD,
        classes=dataset.spec.classes if labeled else 0,
        class_names=dataset.classes if labeled else (),
        names=_names_checksum(dataset, list(parts)),
        data=dataset.source,
        fingerprint=dataset.fingerprint,
        model=name_of(type(tokenizer)),
        weights=codes_checksum(tokenizer),
    )


def _names_checksum(dataset: Dataset, splits: list[str]) -> str | None:
    """Of what the examples of some splits are called; None unless all have names."""
    if not all(split in dataset.names for split in splits):
        return None
    digest = hashlib.sha256()
    for split in splits:
        for name in dataset.names[split]:
            digest.update(f"{printable(name)}\n".encode())
    return digest.hexdigest()
