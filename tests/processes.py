"""Programs in processes forked from one that has imported torch and Fabric: it takes seconds each time."""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ancestral", "ancestral.training", "lightning_fabric"])
_SECONDS = 300


def start(program, *arguments, said, **environment):
    """Start a Python program, given as text, whose output goes to the file ``said``; its process.

    It ends when and as the program does: ``exitcode`` is its status, or less the signal that ended it.
    """
    file = said.with_suffix(".py")
    file.write_text(program)
    process = _CONTEXT.Process(target=_program, args=([file, *arguments], os.environ | environment, said))
    process.start()
    return process


def stop(process, number, once):
    """Send a signal as soon as ``once()`` is true, within two minutes; the process's exit code."""
    end = time.monotonic() + 120
    while not once():
        assert process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < end, "it did not come so far in two minutes"
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def in_two_processes(arguments):
    """Run a Python program with the same arguments in two processes, as torchrun would; what they print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests", "OMP_NUM_THREADS": 1}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, f"{rank}.txt") for rank in range(2)]
        running = []
        for rank in range(2):
            environment = dict(os.environ) | {
                name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()
            }
            running.append(_CONTEXT.Process(target=_program, args=(arguments, environment, said[rank])))
            running[-1].start()
        end = time.monotonic() + _SECONDS
        while any(p.is_alive() for p in running) and time.monotonic() < end:
            if any(p.exitcode for p in running):  # one would wait for the other for ever
                break
            time.sleep(0.02)
        failed = [p for p in running if p.exitcode != 0]
        for process in running:
            process.kill()
            process.join()
        output = "".join(path.read_text() for path in said if path.exists())
    assert not failed, output
    return output


def _program(arguments, environment, said):
    """The program, whose output goes to a file."""
    os.environ.clear()
    os.environ.update(environment)
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    import torch  # of the process that this one is forked from

    torch.set_num_threads(1)
    sys.argv = [str(argument) for argument in arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
