"""Damaged and hostile files and options: every command ends well, or in one line; none hangs or fills memory.

A case is a function of its number alone. `make test` runs a few; ANCESTRAL_FUZZ=2000 runs that many.
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import struct
import traceback
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ancestral.cli import main as commands
from ancestral.data import load_data
from ancestral.errors import UserError
from ancestral.taxonomy import TAXONOMY

CASES = int(os.environ.get("ANCESTRAL_FUZZ", "60"))
SECONDS = 30
"""Within which a case has to end; the slowest takes a few."""
MEMORY = 4 * 2**30
"""Bytes that a case may reserve beyond what the process has: what is larger fails, and so is seen."""

QUICKLY = "--device cpu --log-every 1 --checkpoint-every 1 --evaluate-every 0 --sample-every 0"
COMMON = f"--data digits {QUICKLY}"
PRIOR = "--model.prior.width 4 --model.prior.layers 1 --model.prior.head 4"


def stages(*names):
    return " ".join(f"--{name}.steps 2 --{name}.batch-size 8 --{name}.warmup 0" for name in names)


TRAIN = {
    "vqvae": f"vqvae {COMMON} {stages('tokenizer', 'prior')} --model.quantizer.codebook-size 8 "
    "--model.quantizer.dim 4 --model.stride 2 --model.width 4 --model.blocks 1 --model.residual-width 4 "
    f"--model.components 2 {PRIOR}",
    "vae": f"vae {COMMON} {stages('training')} --model.architecture mlp --model.latents 2 "
    "--model.architecture.hidden 8 --model.components 2",
    "gated-pixelcnn": f"gated-pixelcnn {COMMON} {stages('training')} --training.no-compile --model.width 4 "
    "--model.layers 1 --model.head 4",
}
SPEECH = (
    f"vqvae-sound {QUICKLY} {stages('tokenizer', 'prior')} --tokenizer.no-compile "
    "--sound.length 256 --sound.levels 16 "
    "--model.strides 4 --model.input waveform --model.width 4 --model.blocks 1 --model.residual-width 4 "
    "--model.quantizer.codebook-size 4 --model.quantizer.dim 4 "
    + " ".join(
        f"--model.{net}.{size}" for net in ("decoder", "prior")
        for size in ("width 4", "gate-width 4", "skip-width 4", "layers 2", "cycles 1")
    )
)  # fmt: skip
READING = {
    "vqvae": (
        "sample RUN --n 2 --out out",
        "evaluate RUN --limit 4",
        "reconstruct RUN --n 2 --out out",
        "tokenize RUN --split test --out codes.npy",
        "detokenize RUN good.npy --out out",
    ),
    "vae": ("sample RUN --n 2 --out out", "evaluate RUN --limit 4", "reconstruct RUN --n 2 --out out"),
    "gated-pixelcnn": (
        "sample RUN --n 2 --out out",
        "complete RUN --n 2 --out out",
        "certify RUN --trials 1",
    ),
}
ODD = (
    None, True, False, -1, 0, 1, 3, 2.5, -0.0, 10**12, 2**31, 2**63, 2**70, 10**400, 1e308, 5e-324,
    float("nan"), float("inf"), "", "x", "digits", "NaN", "\x00", "\x1b[2J", "a\nb", "\ud800", "🦊" * 3,
    "ü" * 300, "../..", "x" * 100_000, [], [[]], {}, {"kind": []}, {"kind": "x"}, {"": {}}, [None],
    [10**12] * 3, ["a"], list(range(100)), {"a": {"b": {"c": 1}}},
)  # fmt: skip
LIKE = {
    bool: (True, False),
    int: (-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 63, 256, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**70),
    float: (-1.0, 0.0, 0.5, 0.999, 1.0, 2.0, 1e-9, 5e-324, 1e9, 1e308, float("nan"), float("inf"), 10**12,
            10**400),
    str: ("", "x", "NaN", "..", "\x1b[2J", "mse", "adamw", "categorical", "normal", "cosine", "vae", "cuda",
          "rgb"),
}  # fmt: skip
"""Values of the type that is there, which get further than others."""
WORDS = {
    "INT": ("-1", "0", "1", "2", "3", "4", "5", "7", "16", "9" * 5000, "1000000000", "1000000000000",
            "9223372036854775807", "9223372036854775808", "1180591620717411303424"),
    "FLOAT": ("-1", "0", "0.5", "0.999", "1", "3.5", "1e400", "1e-320", "1e-9", "1e9", "1e38", "1e300", "nan",
              "inf"),
}  # fmt: skip
WORDS["CLASS"] = WORDS["INT"]
TEXTS = (
    "", "None", "true", "x", "\x1b[31m", "a\nb", "🦊", "\udcff", "../..", "--", "-", "[1]", "{}", "x" * 300,
    "file", "pipe", "empty", "good.npy", "mse", "categorical", "logistic-mixture", "adagrad", "all", "digits",
    "rotary",
)  # fmt: skip


class Hang(BaseException):
    """Above what commands may catch."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a finished run of each kind, and its own codes."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name, line in TRAIN.items():
        assert commands.run(["train", *shlex.split(line), "--out", str(folder / name)]) == 0
    assert commands.run(["evaluate", str(folder / "vqvae")]) == 0
    line = f"train {SPEECH} --data tones --out {folder}/speech"
    assert commands.run(shlex.split(line)) == 0
    return folder


# What is damaged


def odd_json(rng, value):
    """A JSON value with one change somewhere."""
    places = []

    def walk(inside):
        for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                walk(inside[key])

    walk(value)
    if not places or rng.random() < 0.05:
        return rng.choice(ODD)
    inside, key = rng.choice(places)
    how = rng.random()
    if how < 0.1:
        del inside[key]
    elif how < 0.2 and isinstance(inside, dict):
        inside[f"{key}{rng.choice(['s', '', chr(27), '.'])}"] = inside.pop(key)
    elif how < 0.25 and isinstance(inside, list):
        inside.extend([inside[key]] * rng.choice([1, 1000]))
    elif how < 0.7 and type(inside[key]) in LIKE:
        inside[key] = rng.choice(LIKE[type(inside[key])])
    else:
        inside[key] = rng.choice(ODD)
    return value


def word(rng, form):
    """A word for a place of an option, of that form most of the time."""
    if rng.random() < 0.15:
        return rng.choice(rng.choice([*WORDS.values(), TEXTS]))
    if form.startswith("{"):
        return rng.choice(re.findall(r"[\w.-]+", form) or TEXTS)
    return rng.choice(WORDS.get(form, TEXTS))


def options_of(command):
    """The options of a command, and the form of each one's values, from its help."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        commands.run([*command, "--help"])
    found = re.findall(r"(?m)^[│ ]+(--[a-z][\w.-]*)((?: \[?(?:[A-Z]+|\{[^}]+\}))*)", shown.getvalue())
    return {flag: [form.lstrip("[") for form in forms.split()] for flag, forms in found}


def odd_bytes(rng, content):
    """Bytes with one change somewhere."""
    at = rng.randrange(len(content) + 1)
    return rng.choice(
        [
            lambda: content[:at],
            lambda: content[at:],
            lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
            lambda: content[:at] + rng.randbytes(rng.choice([1, 8, 1000])) + content[at:],
            lambda: rng.randbytes(1000),
            lambda: b"",
            lambda: b"\0" * len(content),
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 900 + b"1" + b"}" * 900,
            lambda: b"1" * 5000,
            lambda: content * 2,
        ]
    )()


def put_odd_thing(rng, path):
    """Something that is no file in the place of a file."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    rng.choice(
        [
            lambda: os.mkfifo(path),
            path.mkdir,
            lambda: path.symlink_to(path.name),
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to("nowhere"),
            lambda: None,
        ]
    )()


def damage_json(rng, path):
    text = json.dumps(odd_json(rng, json.loads(path.read_text())))
    path.write_text(text)


def damage_lines(rng, path):
    lines = path.read_text().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(odd_json(rng, json.loads(lines[at])))
    if rng.random() < 0.2:
        lines.insert(
            at, rng.choice(["", "{", "1" * 5000, "[" * 5000, '{"stage": "x", "step": 1e300, "a": 1}', "[]"])
        )
    path.write_text("\n".join(lines) + "\n")


def damage_tensors(rng, path):
    """Another type, shape, place or name of one tensor, or other bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    if not names:
        path.write_bytes(odd_bytes(rng, content))
        return
    name, how = rng.choice(names), rng.randrange(7)
    if how == 0:
        header[name]["dtype"] = rng.choice(
            ["I32", "F32", "F64", "U8", "BOOL", "BF16", "U64", "F8_E4M3", "C64", "X"]
        )
    elif how == 1:
        header[name]["shape"] = rng.choice(
            [[], [0], [10**12], [2**62, 4], [-1], [1] + header[name]["shape"], [2.5]]
        )
    elif how == 2:
        header[rng.choice(["other", "level0", "train.x", ""])] = header.pop(name)
    elif how == 3:
        del header[name]
    elif how == 4:
        header = odd_json(rng, header)
    elif how == 5:
        data = rng.randbytes(len(data)) if rng.random() < 0.5 else b"\xff" * len(data)
    else:
        path.write_bytes(odd_bytes(rng, content))
        return
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def damage(rng, path):
    """One change to a file, or something else in its place."""
    if rng.random() < 0.08:
        put_odd_thing(rng, path)
    elif rng.random() < 0.15:
        path.write_bytes(odd_bytes(rng, path.read_bytes()))
    else:
        how = {".json": damage_json, ".jsonl": damage_lines, ".safetensors": damage_tensors}.get(path.suffix)
        how(rng, path) if how else path.write_bytes(odd_bytes(rng, path.read_bytes()))


# The cases of each area: what is laid in the current folder, and the command that is given there


def of_run(rng, runs, name):
    shutil.copytree(runs / name, "run", ignore=shutil.ignore_patterns("tensorboard", "samples"))
    return Path("run")


def run_and_report(rng, runs):
    """The files of a run that say something of it."""
    run = of_run(rng, runs, "vqvae")
    file = rng.choice(
        ["run.json", "run.json", "evaluation.json", "evaluation.json", "metrics.jsonl", "splits.json"]
    )
    damage(rng, run / file)
    readers = ["report run", "report run", "evaluate run --limit 3", "sample run --n 1 --out out"]
    return rng.choice(readers) if file == "run.json" else "report run"


def saved_model(rng, runs):
    """``config.json`` and weights, with their checksum or without."""
    name = rng.choice(list(TRAIN))
    model = of_run(rng, runs, name) / "model"
    config = json.loads((model / "config.json").read_text())
    if rng.random() < 0.7:  # behind the checksum there is more that may be wrong
        del config["sha256"]
        (model / "config.json").write_text(json.dumps(config))
    damage(rng, model / rng.choice(["config.json", "config.json", "model.safetensors"]))
    np.save("good.npy", np.zeros((2, 1, 4, 4), np.uint8))
    line = rng.choice(READING[name])
    takes_data = line.split()[0] in ("evaluate", "reconstruct", "tokenize", "complete")
    return line.replace("RUN", "run/model --data digits" if takes_data and rng.random() < 0.5 else "run")


def resumed(rng, runs):
    """A training that goes on from checkpoints, codes and metrics."""
    name = rng.choice(list(TRAIN))
    run = of_run(rng, runs, name)
    if rng.random() < 0.7:
        shutil.rmtree(run / "model")
    if rng.random() < 0.5:
        shutil.rmtree(run / "checkpoints" / ("prior" if name == "vqvae" else "training"))
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in (".lock", "evaluation.json")]
    damage(rng, rng.choice(files))
    return f"train {TRAIN[name]} --out run"


def codes(rng, runs):
    """Archives of codes."""
    if rng.random() < 0.4:
        with contextlib.redirect_stdout(io.StringIO()):
            assert (
                commands.run(shlex.split(f"tokenize {runs}/vqvae --split test --out codes.safetensors")) == 0
            )
        damage(rng, Path("codes.safetensors"))
        return f"detokenize {runs}/vqvae codes.safetensors --n 3 --out out"
    dtype = rng.choice(
        ["<i8", "|u1", ">i2", "<u8", "<f4", "|b1", "|O", "<U4", "<m8", "|V8", "x", "(('a','<i8'),)"]
    )
    shapes = ["(2, 1, 4, 4)", "(1000000000000, 1, 4, 4)", f"({2**70}, 1)", "(2000000000, 2000000000, 4)",
              "()", "(-1, 1, 4, 4)", "(0, 1, 4, 4)", "(2,)", "(True, 1, 4, 4)", "(1.5,)", "'x'", "(" * 500,
              "-" * 3000 + "1", "(1,) * 10**9", "[2, 1, 4, 4]", "(2, 1, 4, 4), 'more': 1"]  # fmt: skip
    shape = rng.choice([shapes[0], *shapes])
    order = rng.choice([True, False, False, 3])
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    version = bytes([rng.choice([1, 1, 1, 2, 9]), 0])
    content = b"\x93NUMPY" + version + struct.pack("<H", len(text) + 1) + text + b"\n" + rng.randbytes(512)
    Path("codes.npy").write_bytes(odd_bytes(rng, content) if rng.random() < 0.2 else content)
    if rng.random() < 0.05:
        put_odd_thing(rng, Path("codes.npy"))
    return f"detokenize {runs}/vqvae codes.npy --out out"


def option_files(rng, runs):
    """Files of options, trained with for two steps."""
    name = rng.choice(list(TRAIN))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert commands.run(["train", *shlex.split(TRAIN[name]), "--print-config"]) == 0
    Path("options.json").write_text(printed.getvalue())
    damage(rng, Path("options.json"))
    recipe, *_ = TRAIN[name].split()
    kinds = "--model.architecture mlp " if name == "vae" else ""
    ending = rng.choice(["--print-config", "--out new"])
    steps = (
        stages(*(["tokenizer", "prior"] if name == "vqvae" else ["training"]))
        if ending == "--out new"
        else ""
    )
    return f"train {recipe} --config options.json {kinds}{COMMON} {steps} {ending}"


def flags(rng, runs):
    """Values of the options of training."""
    name = rng.choice([*TRAIN, *(row.name for row in TAXONOMY)])
    known = options_of(["train", name])
    # As many steps as one asks for are no hang, nor is the classifier that measures samples.
    flag = rng.choice(
        [
            f
            for f in sorted(known)
            if not f.endswith("steps") and f not in ("--from", "--device", "--measure-every")
        ]
    )
    words = [word(rng, form) for form in known[flag]]
    line = TRAIN.get(name, f"{name} {COMMON} {stages('training')} --training.no-compile")
    ending = rng.choice(["--print-config", "--out new", "--out new"])
    return ["train", *shlex.split(line), *shlex.split(ending), flag, *words]


def arguments(rng, runs):
    """Values of the options of the other commands."""
    np.save("good.npy", np.zeros((2, 1, 4, 4), np.uint8))
    command = rng.choice(
        ["sample", "complete", "reconstruct", "tokenize", "detokenize", "evaluate", "certify", "report",
         "convert", "score", "project", "compare"]
    )  # fmt: skip
    name = {
        "tokenize": "vqvae",
        "detokenize": "vqvae",
        "complete": "gated-pixelcnn",
        "certify": "gated-pixelcnn",
        "convert": "speech",
    }
    run = str(runs / name.get(command, rng.choice(list(TRAIN)))) if rng.random() < 0.9 else rng.choice(TEXTS)
    line = [command, run, *(["good.npy"] if command == "detokenize" else [])]
    known = options_of([command])
    if "--out" in known:
        out = "codes.npy" if command == "tokenize" else "out"
        line += ["--out", out if rng.random() < 0.8 else rng.choice(TEXTS)]
    flags = sorted(known.keys() - {"--device", "--out"})
    for flag in rng.sample(flags, min(len(flags), rng.choice([1, 1, 2, 3]))):
        line += [flag, *(word(rng, form) for form in known[flag])]
    return line


def folders(rng, runs):
    """Folders of images."""
    for label in ("a", "b"):
        Path(f"images/{label}").mkdir(parents=True)
        for i in range(6):
            pixels = np.frombuffer(rng.randbytes(64), np.uint8).reshape(8, 8)
            Image.fromarray(pixels).save(f"images/{label}/{i}.png")
    for _ in range(rng.choice([1, 2, 12])):
        path = rng.choice(sorted(path for path in Path("images").rglob("*.png") if path.is_file()))
        how = rng.random()
        if how < 0.2:
            put_odd_thing(rng, path)
        elif how < 0.4:
            side = struct.pack(
                ">II", rng.choice([1, 0, 30000, 2**31 - 1]), rng.choice([1, 8, 30000, 2**31 - 1])
            )
            content = path.read_bytes()
            path.write_bytes(content[:16] + side + content[24:])
        elif how < 0.6:
            path.write_bytes(odd_bytes(rng, path.read_bytes()))
        else:
            kind = rng.choice(["L", "RGB", "RGBA", "P", "1", "I;16", "F", "CMYK", "LA"])
            form = rng.choice(["png", "tiff", "bmp", "gif", "jpeg", "webp"])
            image = Image.new("L" if kind == "I;16" else kind, (rng.choice([1, 8, 200]), 8))
            with contextlib.suppress(OSError, KeyError, ValueError):
                image.save(path.with_suffix(f".{form}"))
    name = rng.choice(["vae", "gated-pixelcnn"])
    line = TRAIN[name].replace("--data digits", "--data images")
    size = rng.choice(["", "--images.size 8 8"])
    return rng.choice(
        [
            f"train {line} --out new --images.mode gray {size}",
            f"evaluate {runs}/{name} --data images --split all",
            f"tokenize {runs}/vqvae --data images --split all --out codes.npy",
        ]
    )


def recordings(rng, runs):
    """Folders of sounds, and a sound of one's own."""
    for label in ("a", "b"):
        Path(f"sounds/{label}").mkdir(parents=True)
        for i in range(4):
            rate, channels, n = rng.choice([(8000, 1, 300), (16000, 2, 900), (192000, 8, 99), (1, 1, 3)])
            words = rng.randbytes(4 * n * channels)  # of floats nearly all are no sound, some no number
            kind, form = rng.choice([("<i4", "PCM_16"), ("<i4", "PCM_24"), ("<f4", "FLOAT")])
            x = np.frombuffer(words, kind).reshape(n, channels)
            soundfile.write(f"sounds/{label}/{i}.wav", x, rate, subtype=form)
    paths = sorted(Path("sounds").rglob("*.wav"))
    for path in rng.sample(paths, rng.choice([0, 1, 2, 8])):
        if rng.random() < 0.2:
            put_odd_thing(rng, path)
        else:
            path.write_bytes(odd_bytes(rng, path.read_bytes()))
    one = rng.choice(paths)
    return rng.choice(
        [
            f"train {SPEECH} --data sounds --out new",
            f"evaluate {runs}/speech --data sounds --split all",
            f"tokenize {runs}/speech --data sounds --split all --out codes.npy",
            f"convert {runs}/speech --to 1 {one} --out out",
            f"complete {runs}/speech --prefix {one} --seconds 0.02 --out out",
        ]
    )


def tables(rng, runs):
    """Tables. No model here takes any, so that they are loaded alone."""
    rows = [[str(rng.choice([1, 2.5, -3])) for _ in range(3)] for _ in range(9)]
    rows[rng.randrange(9)][rng.randrange(3)] = word(rng, rng.choice(["FLOAT", "TEXT"])).replace(
        "\udcff", "\x00"
    )
    Path("table.csv").write_text("\n".join(map(",".join, rows)))
    np.save("table.npy", np.ones((9, 3)))
    name = rng.choice(["table.csv", "table.npy"])
    if rng.random() < 0.6:
        Path(name).write_bytes(odd_bytes(rng, Path(name).read_bytes()))
    elif rng.random() < 0.2:
        put_odd_thing(rng, Path(name))
    return lambda: load_data(f"table:{name}")


AREAS = (
    run_and_report, saved_model, resumed, codes, option_files, flags, arguments, folders, recordings, tables
)  # fmt: skip


def outcome(case):
    """What is wrong with how a case ended; nothing if it ended well, or in one line about the mistake."""

    def hang(*_):
        raise Hang

    previous = signal.signal(signal.SIGALRM, hang)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            resource.setrlimit(resource.RLIMIT_AS, (reserved + MEMORY, hard))
            signal.alarm(SECONDS)
            status = (case(), 0)[1] if callable(case) else commands.run(case)
    except UserError as error:
        print(f"ancestral: {error}", file=errors)
        status = 2
    except SystemExit as stop:
        status = stop.code or 0
    except Hang:
        return f"hangs in {''.join(traceback.format_exc(limit=-3))}"
    except BaseException:
        return traceback.format_exc(limit=-6)
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, previous)
    said = errors.getvalue()
    if status == 2:
        one_line = said.startswith("ancestral: ") and said.count("\n") == 1 and said[:-1].isprintable()
        return None if one_line and len(said) < 10_000 else f"says {said[:2000]!r}"
    return None if status == 0 else f"ends with {status}: {output.getvalue()[-500:]} {said[-500:]}"


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded through /proc")
@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
def test_every_case_ends_well_or_in_one_line(area, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # takes a minute, and is torch's
    monkeypatch.setenv("ANCESTRAL_CACHE", str(tmp_path / "cache"))
    failures = []
    for number in range(-(-CASES // len(AREAS))):
        rng = random.Random(f"{area.__name__} {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        (folder / "file").write_text("a file")
        (folder / "empty").mkdir()
        os.mkfifo(folder / "pipe")
        case = area(rng, runs)
        case = shlex.split(case) if isinstance(case, str) else case
        if (wrong := outcome(case)) is not None:
            given = "" if callable(case) else shlex.join(case)[:600]
            failures.append(f"case {number}: {given}\n{wrong}")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder, ignore_errors=True)
    report = "\n\n".join(failures).encode("utf-8", "backslashreplace").decode()  # odd words among them
    assert not failures, f"{len(failures)} cases\n\n{report}"
