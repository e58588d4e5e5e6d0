"""What all tests share.

Two test processes share two cores: one thread each, also in the programs that they start.
"""

import os
import shlex

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
from ancestral.cli import main as commands


@pytest.fixture
def call(runs, tmp_path, monkeypatch, capsys):
    """Give a command in a folder of its own; RUNS in it is where the module's ``runs`` are.

    Gives status, output and errors.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")

    def give(line):
        capsys.readouterr()
        try:
            status = commands.run(shlex.split(line.replace("RUNS", str(runs))))
        except SystemExit as stop:
            status = stop.code
        output, errors = capsys.readouterr()
        return status, output, errors

    return give
