"""Where things are kept that can be made again: decoded images, classifiers."""

import os
from pathlib import Path


def cache(kind: str) -> Path | None:
    """The folder for one kind of things, asked for when needed; None if there is not even a home folder.

    It is below ANCESTRAL_CACHE, else XDG_CACHE_HOME/ancestral, else ~/.cache/ancestral.
    """
    if named := os.environ.get("ANCESTRAL_CACHE"):
        return Path(named) / kind
    if general := os.environ.get("XDG_CACHE_HOME"):
        return Path(general) / "ancestral" / kind
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - which fails without a home folder
    return home / ".cache" / "ancestral" / kind if home.is_absolute() else None
