"""What all tests share.

Two test processes share two cores: one thread each, also in the programs that they start.
"""

import os
import shlex
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
import processes
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


@pytest.fixture(scope="session")
def two_processes():
    """Run Python with the same arguments in two processes, as torchrun would; what they print.

    Its own launcher, which loads torch once more, starts those of ``tests/cli``.
    """
    return processes.in_two_processes


@pytest.fixture(scope="session")
def start():
    """Start a Python program, given as text, with arguments, its output going to a file ``said``."""
    return processes.start


@pytest.fixture(scope="session")
def stop():
    """Send a process a signal as soon as a function says so; its exit code."""
    return processes.stop


@pytest.fixture(scope="module")
def in_two_processes(request, tmp_path_factory, two_processes):
    """Call a function of the test's module, by its name and with a path, in each of two processes."""

    def call(function, argument):
        module = Path(request.path)
        program = tmp_path_factory.mktemp("program") / "program.py"
        program.write_text(
            f"import sys\nsys.path.insert(0, {str(module.parent)!r})\n"
            f"from {module.stem} import {function}\n{function}({str(argument)!r})\n"
        )
        two_processes([str(program)])

    return call
