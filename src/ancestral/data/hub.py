"""Data sets of images on the Hugging Face Hub."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ancestral.data.pictures import FORMATS, SPLIT_NAMES, TRAIN, Pictures
from ancestral.errors import UserError


def hub(name: str) -> Pictures:
    """The images of ``OWNER/NAME`` (or ``OWNER/NAME/CONFIG``).

    They are its first column of images, with its first of class labels if it has one.

    Raises:
        UserError: `datasets` is not installed, the data set cannot be fetched, or it holds no images.
    """
    try:
        import datasets  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise UserError(f"hub:{name} needs the package datasets", "pip install 'ancestral[hub]'") from error

    owner, _, rest = name.partition("/")
    repository, _, config = rest.partition("/")
    if not owner or not repository:
        raise UserError(f"expected hub:OWNER/NAME, got hub:{name}", "copy the name from the data set's page")
    try:
        loaded = datasets.load_dataset(f"{owner}/{repository}", *([config] if config else []))
    except (
        Exception
    ) as error:  # network, authentication, missing names and configurations: each library has its own types
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"cannot load {name} from the Hub ({type(error).__name__}: {lines[0]})",
            "check the name and the network, and log in if it is gated",
        ) from error

    found: dict[str, Any] = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if len(found) == 1:
        found = {"train": next(iter(found.values()))}
    splits = {split: rows for split, rows in found.items() if split in SPLIT_NAMES and len(rows)}
    if not any(SPLIT_NAMES[split] == TRAIN for split in splits):
        raise UserError(
            f"hub:{name} has no split train, but {', '.join(sorted(found))}",
            "choose another data set or configuration",
        )
    features = next(iter(splits.values())).features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UserError(
            f"hub:{name} has no column of images, but {', '.join(features)}", "choose another data set"
        )
    label = next(
        (column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)), None
    )

    # undecoded, so that Pillow reads headers alone where they suffice
    columns = [
        rows.select_columns([images[0]]).cast_column(images[0], datasets.Image(decode=False))
        for rows in splits.values()
    ]
    where = [(rows, i) for rows in columns for i in range(len(rows))]
    Image.init()  # before threads do

    def read(i: int) -> Image.Image:
        rows, position = where[i]
        stored = rows[position][images[0]]
        if stored is None:
            raise ValueError("is missing")
        data = io.BytesIO(stored["bytes"]) if stored["bytes"] is not None else stored["path"]
        return Image.open(data, formats=FORMATS)

    return Pictures(
        source=f"hub:{name}",
        names=tuple(f"{split}/{i}" for split, rows in splits.items() for i in range(len(rows))),
        read=read,
        given=np.concatenate(
            [np.full(len(rows), SPLIT_NAMES[split], np.int8) for split, rows in splits.items()]
        ),
        key=" ".join(f"{split}:{rows._fingerprint}" for split, rows in splits.items()),
        labels=np.array(
            [-1 if v is None else v for rows in splits.values() for v in rows[label][:]], np.int64
        )
        if label
        else None,
        classes=tuple(features[label].names) if label else (),
        notes=tuple(
            f"split {split}: neither train nor validation nor test"
            for split in found
            if split not in SPLIT_NAMES
        ),
    )
