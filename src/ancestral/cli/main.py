"""``ancestral COMMAND …``: finds the command, and prints a user's mistake as one line."""

import errno
import importlib
import io
import os
import sys
import threading
from pathlib import Path

COMMANDS = {
    "models": "the taxonomy: every model, what it represents, how it learns",
    "train": "train a model on your data; the same command again resumes",
    "sample": "draw from a trained model: a PNG sheet, files or .npz",
    "complete": "the rest of images known in part, or of a sound that begins",
    "reconstruct": "originals beside the model's versions of them",
    "convert": "sounds in another voice: .wav files and a picture",
    "tokenize": "data to code maps: a folder of Parquet, .npy, .safetensors",
    "detokenize": "code maps back to images or sounds",
    "project": "find the latents of an image",
    "evaluate": "likelihood in bits/dim, reconstruction, codes, samples",
    "score": "log p(x) of each example: anomaly scores as .csv or .parquet",
    "compare": "figures of several runs side by side",
    "certify": "test what an autoregressive network sees: leaks, blind spots",
    "report": "one HTML page about a run",
    "push": "upload a trained model to the Hugging Face Hub",
}

_FULL = {errno.ENOSPC, errno.EDQUOT}
_PLACES = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
"""Errors of the file system that another path mends."""

USAGE = "usage: ancestral COMMAND [options]\n\n" + "\n".join(
    f"  {name:<12} {text}" for name, text in COMMANDS.items()
)

_MORE = """`ancestral COMMAND --help` lists a command's options, `ancestral --version`
tells the version, `ancestral --completion` prints what bash and zsh need to
complete them."""


def main() -> None:
    """The console script.

    Exit status: 0; 2 for a mistake of the user's; 128 + the signal's number after Ctrl-C or SIGTERM.
    """
    threading.excepthook = _in_thread
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    if "OMP_WAIT_POLICY" not in os.environ:
        # Before torch is imported. The threads of GNU's OpenMP spin while they wait for each other, and take
        # several times as long where other programs want the cores; so few turns are free elsewhere.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{_MORE}")
        sys.exit(0)
    if arguments[0] == "--version":
        from importlib.metadata import version  # which takes longer than all the rest

        print(f"ancestral {version('ancestral')}")
        sys.exit(0)
    if arguments[0] == "--completion":
        from ancestral.cli.completion import script

        print(script(), end="")
        sys.exit(0)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run a command; the exit status."""
    from ancestral.errors import Interrupted, UserError, nearest  # after --help

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # models of one's own, given as module:Class, are where one works
    try:
        if arguments[0] not in COMMANDS:
            raise UserError(f"expected a command, got {arguments[0]}", nearest(arguments[0], COMMANDS))
        importlib.import_module(f"ancestral.cli.{arguments[0]}").main(arguments[1:])
    except UserError as error:
        return fail(str(error))
    except Interrupted as stop:  # of a training that a command needs
        print(f"ancestral: {stop}; give the same command again to go on", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("ancestral: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `ancestral models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno in _FULL:
            return fail(
                "expected room to write, got a full disk; free some space and give the same command again"
            )
        if error.errno not in _PLACES or error.filename is None:
            raise
        return fail(f"expected to use {error.filename}, got: {error.strerror}; check the path")
    return 0


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """Tell of an exception in a thread, but leave a full disk to the command, which meets it as well.

    TensorBoard writes in a thread.
    """
    if not (isinstance(failure.exc_value, OSError) and failure.exc_value.errno in _FULL):
        threading.__excepthook__(failure)


def fail(message: str) -> int:
    """Print a user's mistake; exit status 2."""
    print(f"ancestral: {message}", file=sys.stderr)
    return 2
