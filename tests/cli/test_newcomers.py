"""The way of somebody with a folder of pictures: what is said, class names, help that does not wait."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import ancestral
from ancestral.cli import main as commands

TRAIN = shlex.split(
    "train vqvae --recipe color --images.size 8 8 --device cpu --sample-every 0 --tokenizer.steps 3 "
    "--prior.steps 3 --tokenizer.batch-size 16 --prior.batch-size 16 --model.quantizer.codebook-size 8 "
    "--model.quantizer.dim 4 --model.stride 2 --model.width 8 --model.residual-width 4 --model.prior.width 8 "
    "--model.prior.layers 2 --model.prior.head 8"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with spaces in its name: pictures of three classes with bad files among them, and a run."""
    place = tmp_path_factory.mktemp("my things")
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    for i, name in enumerate(("birds", "flags", "stars")):
        (place / "pictures" / name).mkdir(parents=True)
        for j in range(20):
            Image.fromarray(x[20 * i + j]).save(place / "pictures" / name / f"{j:02}.png")
    (place / "pictures/flags/empty.png").touch()
    (place / "pictures/flags/text.png").write_text("no picture")
    status, output, errors = cli(place, *TRAIN, "--data", "pictures", "--out", "runs/a run")
    assert (status, errors) == (0, "")
    (place / "said").write_text(output)
    return place


def cli(folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ancestral", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def call(place, monkeypatch, capsys):
    """Run a command in the place, in this process."""

    def call(*arguments):
        monkeypatch.chdir(place)
        status = commands.run(list(arguments))
        output, errors = capsys.readouterr()
        return status, output, errors

    return call


def test_a_training_says_what_it_is_about_to_do(place):
    said = (place / "said").read_text().splitlines()
    lines = {line[:12].strip(): line[12:] for line in said[:7]}
    assert lines == {
        "data": f"{place / 'pictures'}: image 3x8x8, 256 levels",
        "examples": "51 train, 3 validation, 6 test",
        "classes": "3: birds, flags, stars",
        "skipped": "2: flags/empty.png: not an image that can be read; "
        "flags/text.png: not an image that can be read",
        "parameters": lines["parameters"],
        "memory": lines["memory"],
        "device": "cpu, threads: 1, precision: 32-true",
    }
    counts = json.loads((place / "runs/a run/run.json").read_text())["parameters"]
    assert lines["parameters"] == f"{counts['tokenizer']:,} in tokenizer, {counts['prior']:,} in prior"
    stated = r"[\d.]+ [KM]iB for weights, gradients and Adam of"
    others = r", [\d.]+ [KM]iB for weights of other stages"
    each = rf"{stated} tokenizer{others}; {stated} prior{others}; before activations"
    assert re.fullmatch(each, lines["memory"])
    assert said[-1] == (
        "the run runs/a run is complete; next: ancestral sample 'runs/a run' · "
        "ancestral evaluate 'runs/a run' · ancestral report 'runs/a run'"
    )


def test_nobody_watches_and_no_line_is_blank(place):
    assert all(line.strip() for line in (place / "said").read_text().splitlines())
    command = shlex.join(["ancestral", *TRAIN, "--data", "pictures", "--out", "runs/a run"])
    assert json.loads((place / "runs/a run/run.json").read_text())["command"] == command


def test_an_evaluation_says_what_it_is_not_of(call):
    status, output, _ = call("evaluate", "runs/a run", "--data", "pictures", "--split", "all")
    assert status == 0
    assert "Skipped 2: flags/empty.png: not an image that can be read; flags/text.png: " in " ".join(
        output.split()
    )


def test_classes_have_names(place, call):
    run = place / "runs/a run"
    assert ancestral.load(run).classes == ("birds", "flags", "stars")
    status, output, _ = call("sample", str(run), "--labels", "stars", "0", "--n", "16", "--out", "drawn")
    assert (status, output) == (0, "drawn/samples-seed0-classstars-0.png\n")
    by_name, labels = ancestral.sample(run, 4, labels=["stars", 0])
    by_number, _ = ancestral.sample(run, 4, labels=[2, 0])
    assert labels.tolist() == [2, 0, 2, 0]
    assert by_name.equal(by_number)
    sheet = np.asarray(Image.open(place / "drawn/samples-seed0-classstars-0.png"))
    assert sheet.shape == (22 * 42 + 24, 22 * 42, 3), "4 rows of 4 columns, below heads"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["flgs"], "expected a class of the model, got flgs; did you mean flags?"),
        (
            ["0", "7"],
            "expected labels 0..2, got 0..7; choose labels among the model's classes: birds, flags, ",
        ),
        (["9" * 30], f"expected labels 0..2, got {'9' * 30}; choose"),
    ],
)
def test_classes_that_are_not_there(call, labels, message):
    status, _, errors = call("sample", "runs/a run", "--labels", *labels)
    assert (status, errors[: len(message) + 11]) == (2, f"ancestral: {message}")


def test_files_of_codes_tell_what_they_are_of(place, call):
    assert call("tokenize", "runs/a run", "--out", "c.safetensors", "--split", "test")[0] == 0
    with safe_open(place / "c.safetensors", framework="pt") as file:
        about = {name: json.loads(value) for name, value in file.metadata().items()}
    names = json.loads((place / "runs/a run/splits.json").read_text())["test"]
    assert about == {
        "data": str(place / "pictures"),
        "split": "test",
        "names": names,
        "classes": ["birds", "flags", "stars"],
        "codebook_size": [8],
    }
    assert len(ancestral.read_codes(place / "c.safetensors")[0]) == len(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--steps 9", "got --steps; did you mean --prior.steps or --tokenizer.steps?"),
        ("--prior.stepps 9", "got --prior.stepps; did you mean --prior.steps?"),
    ],
)
def test_an_option_of_every_stage(call, options, message):
    status, _, errors = call(*TRAIN, *options.split())
    assert status == 2
    assert message in errors


HELP = (
    "sample",
    "complete",
    "reconstruct",
    "convert",
    "tokenize",
    "detokenize",
    "evaluate",
    "certify",
    "report",
    "push",
)


def test_help_and_mistakes_do_not_wait_for_torch():
    code = (
        "import sys, contextlib, io, importlib\n"
        f"for command in {HELP}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        importlib.import_module(f'ancestral.cli.{command}').main(['--help'])\n"
        "    assert f'usage: ancestral {command}' in text.getvalue()\n"
        "    assert '{None}' not in text.getvalue(), command\n"
        "    assert 'torch' not in sys.modules, command\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_of_a_model_does_not_wait_for_what_trains_it():
    code = (
        "import sys, contextlib\n"
        "from ancestral.cli.train import main\n"
        "with contextlib.suppress(SystemExit): main(['vqvae', '--help'])\n"
        "assert not {'lightning_fabric', 'torch._dynamo', 'tensorboard'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--tokenizer.ema FLOAT" in done.stdout


def test_the_module_is_the_command(tmp_path):
    assert cli(tmp_path, "--version")[1].startswith("ancestral 0.")
    status, _, errors = cli(tmp_path, "sample", "nothing/here/at/all")
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_models_and_options():
    code = "from ancestral.cli.completion import script; print(script())"
    script = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    def complete(*words):
        asked = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _ancestral"
        ask = f"{asked}; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{ask}"], check=True, capture_output=True, text=True, env={}
        )
        return done.stdout.split()

    assert complete("ancestral", "sa") == ["sample"]
    assert complete("ancestral", "train", "pixelc") == ["pixelcnn", "pixelcnnpp"]
    assert complete("ancestral", "train", "vqvae", "--tokenizer.st") == ["--tokenizer.steps"]
    assert complete("ancestral", "train", "pixelcnn", "--model.first") == ["--model.first-kernel"]
    assert complete("ancestral", "sample", "runs/x", "--lab") == ["--labels"]
