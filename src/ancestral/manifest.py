"""``run.json``, the description of a run: which types and ranges its values have. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ancestral.configuration import Configuration, Count, Natural, Range


@dataclass(frozen=True, kw_only=True)
class Example(Configuration):
    """What one example is."""

    open = True
    shape: tuple[Count, ...] = ()
    levels: Annotated[int | None, Range(least=2)] = None
    classes: Natural = 0
    rate: Count | None = None
    """Of sound: samples a second."""


@dataclass(frozen=True, kw_only=True)
class Source(Configuration):
    """The data that a run is on."""

    open = True
    source: str = ""
    sizes: Mapping[str, Natural] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Length(Configuration):
    """How long a stage is trained."""

    open = True
    steps: Natural | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest(Configuration):
    """What is read of ``run.json``. Options are JSON here: the classes of models and stages check them."""

    open = True
    model: str = "model"
    recipe: str = ""
    source: str = ""
    """Where the recipe's settings come from."""
    config: Mapping[str, Any] = field(default_factory=dict)
    spec: Example = field(default_factory=Example)
    stages: Mapping[str, Length] = field(default_factory=dict)
    data: Source = field(default_factory=Source)
    preparation: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    result_options: Mapping[str, Any] = field(default_factory=dict)
    seed: Natural | None = None
    threads: Count | None = None
    parameters: Mapping[str, Natural] = field(default_factory=dict)
    parameters_in_all: Natural | None = None
    """Of all stages, which may share some."""
    from_: tuple[str, ...] = ()
    """The runs that stages were taken over from."""
    only: tuple[str, ...] = ()
    """The stages that are trained, where that is not all of them."""
    taken: tuple[str, ...] = ()
    """The stages that were taken over."""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    command: str = ""
