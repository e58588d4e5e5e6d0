"""The one way in: from the name of a source to a data set."""

import hashlib
import json
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ancestral.batch import Batch
from ancestral.cache import cache as cache_of
from ancestral.data import store
from ancestral.data.dataset import Dataset
from ancestral.data.decoded import Decoded
from ancestral.data.digits import digits
from ancestral.data.fashion_mnist import fashion_mnist
from ancestral.data.folder import folder
from ancestral.data.hub import hub
from ancestral.data.kinds import preparation_of
from ancestral.data.load_sounds import NAMED_SOUNDS, load_sounds
from ancestral.data.pictures import FORMATS, SPLITS, TEST, VALIDATION, Pictures
from ancestral.data.pixels import Target, decode, header, opened
from ancestral.data.preparation import TABLE, ImageOptions, Preparation, SoundOptions, TableOptions
from ancestral.data.source import UnusableError
from ancestral.data.survey import survey
from ancestral.data.table import load_table
from ancestral.errors import UserError, check_type, nearest
from ancestral.files import Damaged
from ancestral.memory import check_room
from ancestral.spec import Spec

MEMORY_LIMIT = 2 * 2**30
"""Bytes of images or sounds up to which a data set is held in memory."""
LAYOUT = 1
"""Changes when what a cache holds would no longer be what is built today."""

NAMED = {"digits": digits, "fashion-mnist": fashion_mnist}
"""Sources that have a name; ./digits is a folder."""


def load_data(source: str, preparation: Preparation | None = None, cache: Path | None = None) -> Dataset[Any]:
    """Load a data set and share it out among train, validation and test, always in the same way.

    Args:
        source: ``digits``, ``fashion-mnist``, the path of a folder of images or of sounds,
            ``hub:OWNER/NAME``; ``tones``, ``asterisk``, ``asterisk:VOICE`` or ``gcin-voice``; or
            ``table:FILE`` of a .csv, .parquet or .npy file, or
            ``table:patches``, ``iris``, ``wine`` or ``breast-cancer``.
        preparation: what is done to the data; None takes the defaults of the source's kind.
        cache: folder for what does not fit into memory, which is decoded once; None takes ``data`` in
            ANCESTRAL_CACHE, else in XDG_CACHE_HOME/ancestral, else in ~/.cache/ancestral.

    Raises:
        UserError: there is no such source, it takes another kind of preparation, it holds no usable examples,
            sizes differ and no size is asked for, a split would be empty, or the disk is too small.

    >>> data = load_data("digits")
    >>> data
    Dataset('digits': image (1, 8, 8), 17 levels, 10 classes; 1,536 train, 81 validation, 180 test)
    >>> data.train.x.shape, data.split("test", limit=5).labels
    (torch.Size([1536, 1, 8, 8]), tensor([4, 5, 9, 4, 0]))
    """
    known = ", ".join([*NAMED, *NAMED_SOUNDS])
    check_type(source, str, "the name of a source of data", f"give {known} or a folder's path")
    kind = preparation_of(source)
    preparation = kind() if preparation is None else preparation
    if type(preparation) is not kind:
        if kind is ImageOptions:
            find(source)  # raises if there is no such source
        remedy = f"name other data, or prepare them by {kind.__name__}"
        if isinstance(preparation, SoundOptions) and Path(source).expanduser().is_dir():
            remedy = "give a folder of sounds alone: one that holds images too is one of images"
        expected = f"data for {type(preparation).__name__} ({preparation.kind})"
        raise UserError(f"expected {expected}, got {source} ({kind.kind})", remedy)
    if isinstance(preparation, TableOptions):
        return load_table(source, preparation)
    if isinstance(preparation, SoundOptions):
        return load_sounds(source, preparation, _place(cache), MEMORY_LIMIT)
    assert isinstance(preparation, ImageOptions)
    with warnings.catch_warnings():  # here, since it is for all threads
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ``pixels`` has a limit of its own
        return _load_images(find(source), preparation, cache)


def _load_images(pictures: Pictures, options: ImageOptions, cache: Path | None) -> Dataset:
    place = _place(cache)
    home = place / _key(pictures, options) if place is not None else None
    if home is not None and store.is_built(home):
        try:
            return _dataset(pictures, store.mapped(home, pictures), options)
        except Damaged:
            store.forget(home)
    found = survey(pictures, options, room=MEMORY_LIMIT)
    needed = len(pictures) * math.prod(found.target.shape)
    if needed <= MEMORY_LIMIT:
        return _dataset(pictures, store.in_memory(pictures, found, options), options)
    if home is None:
        raise UserError(
            f"expected a folder for {needed:,} bytes of decoded images, got no home folder to make it in",
            "name one: ANCESTRAL_CACHE=FOLDER",
        )
    store.build(home, pictures, options, found.target)
    return _dataset(pictures, store.mapped(home, pictures), options)


def _place(cache: Path | None) -> Path | None:
    """The folder for what does not fit into memory."""
    return cache_of("data") if cache is None else cache.expanduser()


def load_examples(folder_: str | Path, options: ImageOptions) -> tuple[Batch, tuple[str, ...]]:
    """All images of a folder as they are, in no splits, equal ones among them; and the names of the classes.

    Raises:
        UserError: there is no such folder, it holds no usable images, or more than the memory does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        pictures = folder(Path(folder_).expanduser())
        found = survey(pictures, options, room=MEMORY_LIMIT)
        check_room(len(pictures) * math.prod(found.target.shape), f"the images of {folder_}", "give fewer")
        decoded = found.decoded or Decoded(pictures, found.target)
        decoded.read_rest()
    usable = np.array([i for i in range(len(pictures)) if i not in decoded.skipped], np.int64)
    labels = pictures.labels_of(usable)
    x = torch.from_numpy(decoded.x[usable])
    return Batch(x, labels=None if labels is None else torch.from_numpy(labels)), pictures.classes


def load_image(path: str | Path, spec: Spec) -> tuple[torch.Tensor, str]:
    """One image, brought to what a spec says, ``(C, H, W)``; and what was done to it, in words, if anything.

    Raises:
        UserError: there is no such file, it cannot be read as an image, or the spec is not of images.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"expected the file of an image, got {path}", "check the path")
    options = ImageOptions().fitted(spec)
    assert options.size is not None
    target = Target(
        size=options.size,
        resize=True,
        channels=1 if options.mode == "gray" else 3,
        fit=options.fit,
        native=256,
        levels=spec.discrete_levels,
    )
    alone = Pictures(
        source=str(path),
        names=(path.name,),
        read=lambda _: Image.open(path, formats=FORMATS),
        given=np.zeros(1, np.int8),
        key="",
    )
    try:
        with warnings.catch_warnings(), opened(alone, 0) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            (height, width), _ = header(image)
            x = torch.from_numpy(decode(image, target).copy())  # which may be a view of the image
    except UnusableError as error:
        raise UserError(f"expected an image in {path}, got: {error}", "give another file") from None
    if (height, width) == target.size:
        return x, ""
    high, wide = target.size
    cut = "its center " if height * wide != width * high else ""
    return x, f"{height} high and {width} wide, {cut}resized to {high}x{wide}"


def find(source: str) -> Pictures:
    """The images of a source, not yet decoded. Raises UserError if there is none of this name."""
    if source in NAMED:
        return NAMED[source]()
    if source.startswith("hub:"):
        return hub(source.removeprefix("hub:"))
    path = Path(source).expanduser()
    if source and path.is_dir():
        return folder(path, or_sounds=True)
    if source and path.exists():
        if path.suffix.lower() in (".csv", ".npy", ".parquet"):
            raise UserError(
                f"expected a folder of images, got the file {source}",
                f"write {TABLE}{source} if it is a table",
            )
        raise UserError(
            f"expected a folder of images or sounds, got the file {source}",
            f"give the folder that it is in: {path.parent}",
        )
    if source.startswith((".", "~")) or "/" in source or "\\" in source:
        raise UserError(f"there is no folder {source} (looked for {path.absolute()})", "check the path")
    raise UserError(
        f"there is no data set {source!r}, nor such a folder in {Path.cwd()}",
        nearest(source, [*NAMED, *NAMED_SOUNDS, "hub:OWNER/NAME", f"{TABLE}FILE"]),
    )


def _key(pictures: Pictures, options: ImageOptions) -> str:
    """Names the cache: by everything that the decoded images and their splits depend on."""
    values = asdict(options)
    del values["shift"]  # belongs to training, as a flip does, but what is flipped decides what is equal
    if not options.flip:
        del values["flip"]
    # Last, as in the names of the caches that are there.
    shares = {name: values.pop(name) for name in ("validation", "test")}
    return hashlib.sha256(json.dumps([LAYOUT, pictures.key, values | shares]).encode()).hexdigest()[:32]


def _dataset(pictures: Pictures, stored: store.Stored, options: ImageOptions) -> Dataset:
    made = {"train": "what the other splits leave"}
    for name, code, share in (("validation", VALIDATION, options.validation), ("test", TEST, options.test)):
        made[name] = (
            "the source's own"
            if pictures.has(code)
            else f"{share:.4g} of train, in the order of a hash of the pixels"
        )
    shape = tuple(stored.splits["train"].x.shape[1:])
    return Dataset(
        source=pictures.source,
        spec=Spec(shape=shape, levels=stored.levels, classes=len(pictures.classes)),
        train=stored.splits["train"],
        validation=stored.splits["validation"],
        test=stored.splits["test"],
        classes=pictures.classes,
        fingerprint=stored.fingerprint,
        skipped=tuple(f"{pictures.names[i]}: {reason}" for i, reason in sorted(stored.skipped.items()))
        + pictures.notes,
        preparation=options,
        made=made,
        duplicates=stored.duplicates,
        names={name: tuple(np.array(pictures.names, object)[stored.rows[name]]) for name in SPLITS},
    )
