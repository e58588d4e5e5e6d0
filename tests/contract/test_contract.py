"""Every row of the taxonomy keeps the contract; a new model is tested the moment it has a row."""

import inspect
import subprocess
import sys

import pytest

from ancestral.capabilities import Converts
from ancestral.spec import Spec
from ancestral.taxonomy import FAMILIES, TAXONOMY, model_class, name_of
from ancestral.testing import SOUNDS, SPECS, check_model

NAMES = [row.name for row in TAXONOMY]
SEQUENCES = (
    Spec(shape=(1, 4), levels=3),
    Spec(shape=(1, 4), levels=3, classes=2),
    Spec(shape=(2, 3), levels=2),
)


def specs_of(cls):
    if issubclass(cls, Converts):
        return SOUNDS
    return (*SEQUENCES, *SPECS) if getattr(cls, "dims", 2) == 1 else SPECS


@pytest.mark.parametrize("name", NAMES)
def test_model_keeps_the_contract(name):
    cls = model_class(name)
    specs = specs_of(cls)
    check_model(cls, tuple(spec for spec in specs if spec.classes or not cls.needs_classes))


@pytest.mark.parametrize("name", NAMES)
def test_row_agrees_with_the_class(name):
    cls = model_class(name)
    row = next(row for row in TAXONOMY if row.name == name)
    assert name_of(cls) == name
    assert cls(cls.Config.tiny(), specs_of(cls)[1]).likelihood == row.likelihood
    assert f"models.{row.representation}." in cls.__module__
    assert row.paper.rsplit("/", 1)[1] in inspect.getmodule(cls).__doc__, (
        "the file names another paper than the taxonomy"
    )


def test_taxonomy_has_every_system_of_the_design_once():
    names = [row.name for row in TAXONOMY]
    assert len(names) == len(set(names)) == 27
    assert {row.representation for row in TAXONOMY} == set(FAMILIES)


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["--version"]])
def test_command_line_starts_without_torch(arguments):
    code = (
        f"import sys; sys.argv = ['ancestral', *{arguments!r}]\n"
        "from ancestral.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
