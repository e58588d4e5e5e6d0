"""Every command on tiny runs: what it writes is right.

A mistake is one line that says expected, got and what to do.
"""

import contextlib
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ancestral
from ancestral.cli import main as commands
from ancestral.data import ImageOptions, load_data
from ancestral.media import comparison, picture, to_pixels
from ancestral.taxonomy import TAXONOMY, model_class

TRAINING = "--device cpu --log-every 6 --checkpoint-every 6 --evaluate-every 6 --sample-every 0"
PRIOR = "--model.prior.width 8 --model.prior.layers 2 --model.prior.head 8"
TOKENIZER = (
    "--model.quantizer.codebook-size 8 --model.quantizer.dim 4 --model.stride 2 --model.width 8 "
    f"--model.blocks 1 --model.residual-width 4 --model.components 2 {PRIOR}"
)

MLP = "--model.architecture mlp --model.latents 2 --model.architecture.hidden 8 --model.components 2"

CONVOLUTIONAL = (
    "--model.latents 4 --model.architecture.width 8 --model.architecture.stride 2 "
    "--model.architecture.blocks 1 --model.components 2"
)


def stage(name, steps=6):
    return f"--{name}.steps {steps} --{name}.batch-size 16 --{name}.warmup 2"


TRAIN = {
    "vqvae": f"vqvae --data digits {TRAINING} {stage('tokenizer')} {stage('prior')} {TOKENIZER}",
    "mlp": f"vae --data digits {TRAINING} {stage('training')} {MLP}",
    "conv": f"vae --data digits {TRAINING} {stage('training')} --training.learning-rate 0.05 {CONVOLUTIONAL}",
    "pixelcnn": f"gated-pixelcnn --data digits {TRAINING} {stage('training')} --training.no-compile "
    "--model.width 8 --model.layers 2",
}
ALL = tuple(TRAIN)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a finished run of each kind, and a folder of color pictures."""
    folder = tmp_path_factory.mktemp("runs")
    for name, line in TRAIN.items():
        assert commands.run(["train", *shlex.split(line), "--out", str(folder / name)]) == 0
    (folder / "pictures").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    for i, value in enumerate(values):
        Image.fromarray(value).save(folder / "pictures" / f"{i}.png")
    return folder


def pixels(path):
    return np.asarray(Image.open(path))


def shows(path, picture):
    """Whether a PNG is a sheet, enlarged by a whole factor."""
    there = pixels(path)
    factor = len(there) // len(picture)
    return np.array_equal(there, picture.repeat(factor, 0).repeat(factor, 1))


def digits(split="test"):
    return getattr(load_data("digits", ImageOptions()), split)


# What commands write


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_samples(call, name):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        status, output, _ = call(f"sample RUNS/{name} --n 5 --seed {seed} --out {out} --format npz")
        assert (status, output.strip()) == (0, f"{out}/samples-seed{seed}.npz")
    a, b, c = (Path(f"{out}/samples-seed{seed}.npz") for out, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert a.read_bytes() == b.read_bytes()
    x, other = np.load(a)["x"], np.load(c)["x"]
    assert (x.shape, x.dtype) == ((5, 1, 8, 8), np.uint8)
    assert x.max() <= 16
    assert (x != other).any()


def test_forms_of_samples_hold_the_same_images(call, runs):
    for form in ("sheet", "files", "npz"):
        assert call(f"sample RUNS/vqvae --n 3 --labels 8 1 --temperature 0.5 --out . --format {form}")[0] == 0
    name = "samples-seed0-t0.5-class8-1"
    saved = np.load(f"{name}.npz")
    assert saved["labels"].tolist() == [8, 1, 8]
    model = ancestral.load(runs / "vqvae")
    x = torch.from_numpy(saved["x"])
    drawn = model.sample(
        3, torch.tensor([8, 1, 8]), temperature=0.5, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(x, drawn)
    assert shows(f"{name}.png", picture(model.spec, x, columns=2, heads=["8", "1"]))
    files = sorted(Path(name).iterdir())
    assert [f.name for f in files] == [f"{name}-{i}.png" for i in range(3)]
    assert np.array_equal(np.stack([pixels(f) for f in files]), to_pixels(x, model.spec))


def test_samples_go_into_the_run(call, runs):
    assert call("sample RUNS/pixelcnn --n 2")[1].strip() == str(runs / "pixelcnn/samples/samples-seed0.png")
    assert call("sample RUNS/pixelcnn/model --n 2")[1].strip() == "samples-seed0.png"
    assert np.array_equal(pixels("samples-seed0.png"), pixels(runs / "pixelcnn/samples/samples-seed0.png"))


@pytest.mark.parametrize("name", ["vqvae", "mlp", "conv"])
def test_reconstruct(call, runs, name):
    assert call(f"reconstruct RUNS/{name} --n 5 --out .") == (0, "reconstructions.png\n", "")
    model, x = ancestral.load(runs / name), digits().x[:5]
    assert shows("reconstructions.png", comparison(model.spec, x, model.reconstruct(x)))


@pytest.mark.parametrize(
    ("options", "rows", "columns"),
    [
        ("", slice(4, 8), slice(0, 8)),
        ("--rows 6", slice(6, 8), slice(0, 8)),
        ("--hole 1 2 3 4", slice(1, 4), slice(2, 6)),
    ],
)
def test_complete(call, runs, options, rows, columns):
    assert call(f"complete RUNS/pixelcnn --n 5 --seed 3 --out . {options}") == (
        0,
        "completions-seed3.png\n",
        "",
    )
    model, x = ancestral.load(runs / "pixelcnn"), digits().x[:5]
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, rows, columns] = False
    _, completed = ancestral.complete(model, x, known, seed=3)
    assert torch.equal(completed[:, known], x[:, known])
    assert not torch.equal(completed, x)
    assert shows("completions-seed3.png", comparison(model.spec, x, torch.where(known, x, 8), completed))


def test_pictures_of_another_size_and_in_color(call, runs):
    images = ImageOptions(size=(8, 8), mode="gray", levels=17)
    model, data = ancestral.load(runs / "vqvae"), load_data(str(runs / "pictures"), images)
    assert call("reconstruct RUNS/vqvae --data RUNS/pictures --out .")[0] == 0
    assert shows("reconstructions.png", comparison(model.spec, data.test.x, model.reconstruct(data.test.x)))
    assert call("tokenize RUNS/vqvae --data RUNS/pictures --out codes.npy")[0] == 0
    assert np.array_equal(np.load("codes.npy"), model.tokenize(data.train.x)[0].numpy())
    status, output, _ = call("evaluate RUNS/vqvae --data RUNS/pictures")
    assert status == 0
    assert f"{ancestral.evaluate(model, data)['nelbo_codes_decoder']:.4f}" in output


def test_tokens_go_out_and_come_back(call, runs):
    status, output, _ = call("tokenize RUNS/vqvae --out codes.npy --split test")
    assert (status, output) == (0, "codes.npy: (180, 1, 4, 4) uint8\n")
    assert call("tokenize RUNS/vqvae --out codes.safetensors --split test")[0] == 0
    model, split = ancestral.load(runs / "vqvae"), digits()
    codes, tensors = np.load("codes.npy"), load_file("codes.safetensors")
    assert np.array_equal(codes, model.tokenize(split.x)[0].numpy())
    assert torch.equal(tensors["level0"], torch.from_numpy(codes))
    assert torch.equal(tensors["labels"], split.labels)
    for source in ("codes.npy", "codes.safetensors"):
        assert call(f"detokenize RUNS/vqvae {source}")[:2] == (0, "codes.npz\n")
        assert np.array_equal(np.load("codes.npz")["x"], model.reconstruct(split.x).numpy())
    assert call("detokenize RUNS/vqvae codes.npy --n 7 --format sheet")[:2] == (0, "codes.png\n")
    assert shows("codes.png", picture(model.spec, model.reconstruct(split.x[:7])))


def test_codes_of_any_integer_type(call):
    for dtype in ("uint8", "int32", "int64", "uint64"):
        np.save("codes.npy", np.arange(16, dtype=dtype).reshape(1, 1, 4, 4) % 8)
        assert call(f"detokenize RUNS/vqvae codes.npy --out {dtype}")[0] == 0
    images = [np.load(f"{dtype}/codes.npz")["x"] for dtype in ("uint8", "int32", "int64", "uint64")]
    assert all(np.array_equal(images[0], image) for image in images)


def test_evaluate_prints_and_writes(call, runs):
    run = runs / "vqvae"
    status, output, _ = call("evaluate RUNS/vqvae")
    assert status == 0
    written = json.loads((run / "evaluation.json").read_text())
    again = ancestral.evaluate(str(run), write=False)
    assert written["figures"] == again.to_json()["figures"]
    assert written["examples"] == 180
    assert "VQ-VAE on digits, test split, 180 examples" in output
    assert "not written" not in output
    assert re.search(
        rf"negative ELBO \(codes \+ decoder\) +{again['nelbo_codes_decoder']:.4f} "
        r"± 0\.\d{4}  bits/dim +bound",
        output,
    )
    assert max(map(len, output.splitlines())) <= 80
    assert {"reconstructions.png", "latent.png"} <= {p.name for p in (run / "samples").iterdir()}
    assert call("report RUNS/vqvae")[:2] == (0, f"{run}/report.html\n")
    assert f"{again['nelbo_codes_decoder']:.4f}" in (run / "report.html").read_text()


@pytest.mark.parametrize("part", ["--data digits", "--limit 8", "--split train", "--split all"])
def test_other_data_leave_the_runs_evaluation_alone(call, runs, tmp_path, part):
    assert call("evaluate RUNS/mlp")[0] == 0
    before = (runs / "mlp/evaluation.json").read_bytes()
    status, output, _ = call(f"evaluate RUNS/mlp {part}")
    assert status == 0
    examples = {
        "--limit 8": "test split, 8",
        "--split train": "train split, 1,536",
        "--split all": "all split, 1,797",
    }
    assert f"{examples.get(part, 'test split, 180')} examples" in output
    assert (
        f"(not written into {runs}/mlp: that holds the figures of the whole of its own test split)" in output
    )
    assert (runs / "mlp/evaluation.json").read_bytes() == before
    assert {"interpolations.png", "latent.png", "reconstructions.png"} <= {
        p.name for p in (runs / "mlp/samples").iterdir()
    }
    assert not list(tmp_path.iterdir())


def test_evaluate_one_example(call):
    assert call("evaluate RUNS/conv --limit 1 --importance-samples 2")[0] == 0


def test_push_uploads_the_model(call, monkeypatch):
    from ancestral import hub

    pushed = {}

    def push(folder, name, *, token=None, private=False, api=None):
        pushed.update(name=name, private=private, files=sorted(p.name for p in folder.iterdir()))
        return "https://huggingface.co/somebody/digits"

    monkeypatch.setattr(hub, "push", push)
    assert call("push RUNS/vqvae somebody/digits --private")[:2] == (
        0,
        "https://huggingface.co/somebody/digits\n",
    )
    assert pushed == {
        "name": "somebody/digits",
        "private": True,
        "files": ["config.json", "model.safetensors"],
    }


# The taxonomy and the help


def test_models_fit_the_terminal(call, monkeypatch):
    status, output, _ = call("models")
    assert status == 0
    assert max(map(len, output.splitlines())) <= 80
    for row in TAXONOMY:
        line = next(line for line in output.splitlines() if f"─ {row.name} " in line)
        assert row.paper.partition(",")[0] in line, "the authors stand in the model's own line"
    monkeypatch.delenv("COLUMNS")
    lines = call("models")[1].splitlines()
    for row in TAXONOMY:
        assert any(
            row.name in line and row.learning in line and row.paper.rpartition("//")[2] in line
            for line in lines
        )


@pytest.mark.parametrize("name", ["pixelcnn", "vqvae"])
def test_certify_says_and_draws_what_a_network_sees(call, runs, name):
    status, output, errors = call(f"certify RUNS/{name} --trials 2 --out certified")
    assert (status, errors) == (0, "")
    assert re.search(
        r"sees [\d,]+ of the [\d,]+ pairs \(output, input\) of the past that it declares", output
    )
    assert "no output sees itself or the future" in output
    assert output.strip().endswith("certified/receptive-field.png")
    assert pixels("certified/receptive-field.png").ndim == 3


def test_certify_fails_on_a_leak(call, runs, monkeypatch):
    from ancestral.nn.causal import RasterConv2d

    monkeypatch.setattr(RasterConv2d, "effective_weight", property(lambda self: self.weight))
    status, output, _ = call(f"certify {runs}/pixelcnn --trials 1 --out leaking")
    assert status == 1
    assert "LEAK: output (0, " in output


def test_certify_names_each_prior_of_a_hierarchy(call, monkeypatch):
    from torch import nn

    from ancestral.models.autoregressive.pixelcnn import PixelCNN
    from ancestral.spec import Spec

    hierarchy = nn.Module()
    hierarchy.priors = nn.ModuleList(
        PixelCNN(PixelCNN.Config.tiny(), Spec(shape=(1, size, size), levels=4, domain="codes"))
        for size in (2, 3)
    )
    monkeypatch.setattr("ancestral.runs.load", lambda run: hierarchy)
    status, output, errors = call("certify hierarchy --trials 1 --out certified")
    assert (status, errors) == (0, "")
    assert [line for line in output.splitlines() if line.endswith(":")] == ["priors.0:", "priors.1:"]
    for i in range(2):
        assert f"certified/receptive-field-priors.{i}.png" in output
        assert pixels(f"certified/receptive-field-priors.{i}.png").ndim == 3


def test_top_k_of_one_draws_the_likeliest(call, runs):
    assert call("sample RUNS/pixelcnn --n 3 --top-k 1 --out one --format npz")[0] == 0
    assert call("sample RUNS/pixelcnn --n 3 --top-k 1 --seed 5 --out one --format npz")[0] == 0
    assert np.array_equal(
        np.load("one/samples-seed0-top1.npz")["x"], np.load("one/samples-seed5-top1.npz")["x"]
    )
    assert call("sample RUNS/pixelcnn --n 3 --top-p 0.9 --out one --format npz")[0] == 0
    assert Path("one/samples-seed0-p0.9.npz").is_file()


def test_the_prior_may_be_another_model(call, runs):
    status, output, _ = call("train vqvae --model.prior transformer --model.prior.heads 2 --print-config")
    assert status == 0
    assert json.loads(output)["model"]["prior"]["heads"] == 2
    assert "dilations" in json.loads(call("train vqvae --print-config")[1])["model"]["prior"]
    line = f"vqvae --data digits --from {runs}/vqvae {TRAINING} {stage('prior', 3)} --out other"
    prior = "--model.prior transformer --model.prior.width 8 --model.prior.heads 2 --model.prior.layers 1"
    assert call(f"train {line} {prior}")[0] == 0
    assert call("evaluate other --limit 20")[0] == 0
    assert json.loads(Path("other/run.json").read_text())["config"]["prior"]["positions"] == "rotary"


def test_models_as_json(call):
    rows = json.loads(call("models --json")[1])
    assert [row["name"] for row in rows] == [row.name for row in TAXONOMY]
    assert next(row for row in rows if row["name"] == "vqvae")["paper"].endswith(
        "https://arxiv.org/abs/1711.00937"
    )


@pytest.mark.parametrize(
    "command",
    [*(c for c in commands.COMMANDS if c != "train"), *(f"train {row.name}" for row in TAXONOMY)],
)
def test_help_explains_every_option(call, command):
    status, output, _ = call(f"{command} --help")
    assert status == 0
    assert max(map(len, output.splitlines())) <= 80
    assert not re.search(r"\\|:math:|``|\bSTR\b|options options|\(default: \)", output)
    entries, shown = {}, None
    for line in re.sub("[│╭╮╰╯]", " ", output).splitlines():
        if match := re.match(r"  (--?[a-z].*?|[A-Z/]+)(  +|$)(.*)", line.rstrip()):
            shown = match[1]
            entries[shown] = match[3]
        elif shown and line.startswith("  ") and not re.fullmatch(r"[\s─-]*", line):
            entries[shown] += " " + line.strip()
        elif not (shown and line.rstrip().endswith("}")):  # a wrapped list of choices goes on at the margin
            shown = None
    assert "-h, --help" in entries
    for option, text in entries.items():
        if option.endswith(","):  # a long name, whose other form with the text is on the next line
            continue
        assert len(re.sub(r"\(default.*|\(required\)", "", text).split()) >= 2, f"{option} has no help"


def test_help_names_the_training_options_and_the_paper(call):
    output = call("train vqvae --help")[1]
    assert "training options" in output
    assert "VQ-VAE, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937" in output


def test_usage_names_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ancestral"])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", output, re.MULTILINE) for name in commands.COMMANDS)
    assert max(map(len, output.splitlines())) <= 80


# Training through the command line


def test_complete_run_says_so(call, runs):
    before = (runs / "mlp/metrics.jsonl").read_bytes()
    status, output, _ = call(f"train {TRAIN['mlp']} --out RUNS/mlp")
    assert status == 0
    following = " · ".join(f"ancestral {command} {runs}/mlp" for command in ("sample", "evaluate", "report"))
    assert output == f"the run {runs}/mlp is complete; next: {following}\n"
    assert (runs / "mlp/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ALL)
def test_printed_options_come_back(call, name):
    status, printed, _ = call(f"train {TRAIN[name]} --print-config")
    assert status == 0
    Path("options.json").write_text(printed)
    model = TRAIN[name].split()[0]
    assert call(f"train {model} --config options.json --print-config")[:2] == (0, printed)
    changed = json.loads(
        call(f"train {model} --config options.json --seed 7 --images.shift 1 --print-config")[1]
    )
    expected = json.loads(printed)
    expected["options"]["seed"], expected["images"]["shift"] = 7, 1
    assert changed == expected, "flags override the file, and only what they name"


def test_options_from_a_file_make_the_same_run(call, runs):
    Path("options.json").write_text(call(f"train {TRAIN['mlp']} --print-config")[1])
    assert call("train vae --data digits --config options.json --out RUNS/mlp")[0] == 0


def test_every_recipe_is_an_option(call):
    for row in TAXONOMY:
        for recipe in model_class(row.name).recipes:
            assert json.loads(call(f"train {row.name} --recipe {recipe} --print-config")[1])["stages"]


def test_another_prior_by_from(call, runs):
    line = f"train vqvae --data digits {TRAINING} {stage('prior')} --from RUNS/vqvae"
    status, output, _ = call(f"{line} --model.prior.layers 1 --out new")
    assert status == 0
    assert not re.search("^tokenizer", output, re.MULTILINE)
    old, new = (load_file(path / "model" / "model.safetensors") for path in (runs / "vqvae", Path("new")))
    assert all(torch.equal(old[k], new[k]) for k in old if not k.startswith("prior"))
    manifest = json.loads(Path("new/run.json").read_text())
    assert (manifest["config"]["quantizer"]["codebook_size"], manifest["config"]["prior"]["layers"]) == (8, 1)


# Mistakes

T = "train vqvae --data digits --out out "
MISTAKES = [
    ("foo", "expected a command, got foo; choose from certify, compare, complete, convert, detokenize"),
    ("evaluat RUNS/vqvae", "did you mean evaluate?"),
    ("models --jsn", "expected an option of ancestral models, got --jsn; did you mean --json?"),
    (
        "train vqvae --prior.lr 1",
        "expected an option of ancestral train vqvae, got --prior.lr; did you mean --prior.learning-rate?",
    ),
    ("train vae --x.lr=0.5", "got --x.lr=0.5; did you mean --training.learning-rate?"),
    (
        "train vae --training.device cpu",
        "expected an option of ancestral train vae, got --training.device; did you mean --device?",
    ),
    ("train vqvea --data digits --out out", "did you mean vqvae?"),
    ("train --data digits", "expected the name of a model first, got --data"),
    ("train vqvae --out out", "expected --data, got none"),
    ("train vqvae --data digits", "expected --out, got none"),
    ("train vqvae --data nope --out out", "choose from asterisk, digits, fashion-mnist, gcin-voice, hub"),
    ("train vqvae --data fashionmnist --out out", "did you mean fashion-mnist?"),
    ("train vqvae --data ./nope --out out", "there is no folder ./nope"),
    ("train vqvae --data empty --out out", "folder empty holds no images or sounds (looked for .png"),
    (
        "train vqvae --data broken --out out",
        "broken can be read (0.png: not an image that can be read); check the files",
    ),
    ("train vqvae --data file --out out", "expected a folder of images or sounds, got the file file"),
    (T + "--recipe smal", "expected a recipe of VQVAE, got smal; did you mean small?"),
    (T + "--recipe", "expected 1 value for --recipe, got fewer"),
    (T + "--model.quantizer.codebok-size 3", "did you mean --model.quantizer.codebook-size?"),
    (T + "--tokenzier.steps 3", "did you mean --tokenizer.steps?"),
    (
        T + "--model.quantizer.codebook-size x",
        "expected --model.quantizer.codebook-size INT, got x; see ancestral train vqvae --help",
    ),
    (T + "--tokenizer.learning-rate fast", "expected --tokenizer.learning-rate FLOAT, got fast"),
    (T + "--tokenizer.gradient-clip fast", "expected --tokenizer.gradient-clip FLOAT, got fast"),
    (T + "--tokenizer.betas 0.9", "expected 2 values for --tokenizer.betas, got fewer"),
    (T + "--model.quantizer.codebook-size 1", "expected codebook_size of at least 2, got 1"),
    (
        T + "--model.quantizer vectr",
        "to be one of vector, residual, finite-scalar, got vectr; did you mean vector?",
    ),
    *(
        (
            f"train {model} --data digits --out out --model.likelihood coupled-logistic-mixture",
            "got coupled-logistic-mixture; did you mean logistic-mixture?",
        )
        for model in ("vae", "vqvae")
    ),
    (T + "--model.stride 3", "expected a stride that is a power of 2, got 3"),
    (T + "--model.stride 16", "expected an image that stride 16 divides, got 8x8"),
    (
        "train dcgan --data digits --out out --model.scales 4",
        "got 8x8; resize the images to 16x16 or choose fewer --model.scales",
    ),
    (
        T + "--tokenizer.batch-size 5000",
        "no larger than the 1536 training examples, got 5000; lower --tokenizer.batch-size",
    ),
    (
        T + "--tokenizer.batch-size 5000 --prior.batch-size 6000",
        "got 5000 and 6000; lower --tokenizer.batch-size and --prior.batch-size",
    ),
    (T + "--images.size 3", "expected --images.size INT INT, got 3; see ancestral train vqvae --help"),
    (T + "--images.size 0 3", "expected a size of two positive numbers, got (0, 3)"),
    (T + "--seed -1", "expected seed of at least 0, got -1"),
    (T + "--device tpu", "expected --device to be one of auto, cpu, cuda, got tpu"),
    (T + "more", "expected no more words, got more"),
    (
        "train vqvae --data digits --out RUNS/vqvae",
        "holds a run with other options: --model.blocks (1 there, 2 here)",
    ),
    ("train vqvae --data digits --out other", "got other which holds something else; choose another --out"),
    ("train vqvae --data digits --out file", "got file which holds something else; choose another --out"),
    (
        "train vqvae --data digits --out file/run",
        "expected to write into file/run, got file which is no folder; choose another --out",
    ),
    ("train vqvae --data digits --out damaged", "expected JSON in damaged/run.json"),
    ("train vqvae --data digits --out partial", "got one without data; restore the file or train anew"),
    (
        T + "--config section.json",
        "expected the sections images, model, options, stages in section.json, got modle",
    ),
    (T + "--config key.json", "expected an option of model, got model.widht; did you mean width?"),
    (T + "--config type.json", "expected model.width to be of type int, got 'wide'"),
    (
        T + "--config stage.json",
        "expected a stage of the model in stage.json, got priors; did you mean prior?",
    ),
    (T + "--config stages.json", "expected stages by name in stages.json, got []"),
    (T + "--config list.json", "got list; see --print-config"),
    (T + "--config file", "expected JSON in file"),
    (T + "--config nothing.json", "expected the file nothing.json, got nothing there"),
    (T + "--from other", "expected a run directory, got other without run.json"),
    (T + "--from RUNS/pixelcnn", "expected a run of the same model to start from, got gated-pixelcnn"),
    (T + "--from unfinished", "got a run that has not finished a stage; go on with: "),
    (T + "--from RUNS/vqvae --model.width 16", "leave the options of that stage as they are in the run"),
    (
        "train gated-pixelcnn --data digits --out out --from RUNS/pixelcnn",
        "expected a model of several stages for --from",
    ),
    ("sample", "expected RUN, got none; see ancestral sample --help"),
    ("sample nope", "expected a run directory or a Hub name OWNER/NAME, got nope"),
    ("sample RUNS/vqvea", "/vqvae?"),
    ("evaluate here/vqvea", "did you mean here/vqvae?"),
    ("sample empty", "got a folder without config.json; give a run directory or its model/ folder"),
    ("sample file", "expected a run directory or a Hub name OWNER/NAME, got file"),
    ("sample unfinished", "got a run that has not finished a stage; go on with: "),
    ("sample damaged", "expected JSON in damaged/run.json"),
    ("sample partial", "expected the description of a run in partial/run.json, got one without data"),
    ("sample listed", "expected the description of a run in listed/run.json, got something else"),
    (
        "sample pickled",
        "expected safetensors in pickled/model.safetensors, got a file that is torn or of another kind",
    ),
    ("sample torn", "expected safetensors in torn/model.safetensors, got a file that is torn"),
    ("sample weightless", "expected the file weightless/model.safetensors, got nothing there"),
    (
        "sample foreign",
        "expected a model of ancestral in foreign, got Glow; choose one of class BigGAN, ConditionalGAN",
    ),
    ("sample misfit", "expected weights for this configuration, got others in misfit/model.safetensors"),
    ("sample specless", "expected spec, got none in specless/config.json; restore the file"),
    ("sample nobody/nothing", "expected to reach the Hugging Face Hub"),
    ("sample RUNS/vqvae --n 0", "expected at least 1 sample, got 0; raise --n"),
    ("sample RUNS/vqvae --n many", "expected -n INT, --n INT, got many"),
    ("sample RUNS/vqvae --temperature 0", "expected temperature above 0, got 0.0"),
    ("sample RUNS/vqvae --temperature -1", "expected temperature above 0, got -1.0"),
    ("sample RUNS/vqvae --temperature nan", "expected temperature above 0, got nan; choose"),
    ("sample RUNS/vqvae --temperature inf", "expected temperature above 0, got inf; choose"),
    ("sample RUNS/vqvae --labels 10", "expected labels 0..9, got 10; choose"),
    (
        "sample RUNS/mlp --labels 3",
        "expected no labels, got some: this VAE does not draw by class; leave labels out, or train",
    ),
    ("sample RUNS/vqvae --labels 0 -1", "expected labels 0..9, got -1..0"),
    ("sample RUNS/vqvae --labels cat", "expected a class of the model, got cat; choose from 0, 1, 2, "),
    (
        "train vqvae --data digits --out out --model.prior transfomer",
        "got transfomer; did you mean transformer?",
    ),
    ("sample RUNS/vqvae --top-k 0", "expected top_k of at least 1, got 0; raise top_k"),
    ("sample RUNS/vqvae --top-k 10000", "expected top-k of 1.."),
    ("sample RUNS/vqvae --top-p 2", "expected top_p in (0, 1], got 2.0"),
    (
        "sample RUNS/mlp --top-k 3",
        "expected no top-k, got one: VAE takes temperature; leave it out",
    ),
    ("certify RUNS/mlp", "expected an autoregressive model, got VAE; ancestral models lists them"),
    ("certify RUNS/pixelcnn --trials 1000000000", r"expected trials in [1, 1000], got 1000000000; choose"),
    ("certify RUNS/pixelcnn --trials 0", "expected trials of at least 1, got 0; raise trials"),
    ("sample RUNS/vqvae --seed -1", "expected a seed of 0 or more, below 2^63, got -1"),
    (
        "sample RUNS/vqvae --out file",
        "expected to write file/samples-seed0.png, got file which is no folder; choose another --out",
    ),
    (
        "sample RUNS/vqvae --out file/deep/er",
        "expected to write file/deep/er/samples-seed0.png, got file which is no folder",
    ),
    ("sample RUNS/vqvae --format tiff", "one of auto, sheet, files, npz, shards, webp, gif, got"),
    ("sample RUNS/vqvae --sead 1", "did you mean --seed?"),
    (
        "reconstruct RUNS/pixelcnn",
        "expected a model that reconstructs, got GatedPixelCNN; use sample instead",
    ),
    ("complete RUNS/mlp", "expected a model that completes examples, got VAE; train an autoregressive model"),
    ("complete RUNS/pixelcnn --rows 8", "expected to keep 0..7 rows, got 8; leave at least one row to draw"),
    (
        "complete RUNS/pixelcnn --hole 5 5 4 2",
        "expected a hole within 8x8, got (5, 5, 4, 2); give top, left, height, width",
    ),
    ("complete RUNS/pixelcnn --hole 5 5 4", "expected --hole INT INT INT INT, got 5 5 4"),
    (
        "complete RUNS/pixelcnn --rows 2 --hole 5 5 1 1",
        "expected --rows or --hole, got both; leave one of them out",
    ),
    ("complete RUNS/pixelcnn --n 0", "expected at least 1 example, got 0"),
    ("reconstruct RUNS/vqvae --n 0", "expected at least 1 example, got 0"),
    (
        "reconstruct RUNS/vqvae --split tset",
        "to be one of train, validation, test, all, got tset; did you mean test?",
    ),
    ("reconstruct RUNS/vqvae --data good.npy", "expected a folder of images, got the file good.npy"),
    ("reconstruct RUNS/vqvae/model", "expected data, got none"),
    ("tokenize RUNS/mlp --out c.npy", "expected a model with code maps, got VAE; train a tokenizer"),
    ("tokenize RUNS/vqvae", "expected --out PATH, got none"),
    ("tokenize RUNS/vqvae --out c.txt", "got c.txt; change its ending, or leave it out for a folder"),
    ("tokenize RUNS/vqvae --out file", "expected a new or an empty folder, got file which holds something"),
    ("tokenize RUNS/vqvae --out good.npy", "expected a new file, got good.npy which is there already"),
    ("tokenize RUNS/vqvae --out file/c.npy", "expected to write file/c.npy, got file which is no folder"),
    ("tokenize RUNS/vqvae --out c.npy --data nope", "there is no data set 'nope', nor such a folder"),
    ("detokenize RUNS/vqvae nothing.npy", "expected the file nothing.npy, got nothing there"),
    (
        "detokenize RUNS/vqvae objects.npy",
        "expected an array in objects.npy, got something else (Array can't be memory-mapped: Python objects",
    ),
    ("detokenize RUNS/vqvae pickle.npy", "expected an array in pickle.npy, got something else"),
    (
        "detokenize RUNS/vqvae archive.npy",
        "expected an array in archive.npy, got something else (the magic string",
    ),
    ("detokenize RUNS/vqvae pickle.safetensors", "expected safetensors in pickle.safetensors"),
    ("detokenize RUNS/vqvae floats.npy", "expected an array of integers in floats.npy, got float64"),
    (
        "detokenize RUNS/vqvae number.npy",
        "expected an array of integers in number.npy, got int64 of shape ()",
    ),
    (
        "detokenize RUNS/vqvae high.npy",
        "expected values 0..7, got 8 as codes; give what tokenize gave, of this model",
    ),
    ("detokenize RUNS/vqvae low.npy", "expected values 0..7, got -1 as codes"),
    ("detokenize RUNS/vqvae shape.npy", "expected examples of shape (1, 4, 4), got (1, 5, 5) as codes"),
    ("detokenize RUNS/vqvae none.npy", "expected as many code maps on each level, at least 1, got 0"),
    ("detokenize RUNS/vqvae levels.safetensors", "expected 1 code map (one for each level), got 2"),
    (
        "detokenize RUNS/vqvae names.safetensors",
        "expected code maps level0, level1, … in names.safetensors, got levelx",
    ),
    ("detokenize RUNS/vqvae scalar.safetensors", "as codes; give what tokenize gave, of this model"),
    ("detokenize RUNS/vqvae good.npy --n 0", "expected at least 1 example, got 0"),
    ("detokenize RUNS/mlp good.npy", "expected a model with code maps, got VAE"),
    ("evaluate RUNS/vqvae --limit 0", "expected at least 1 example, got 0"),
    ("evaluate RUNS/vqvae --importance-samples -1", "expected at least 1 importance sample, got -1"),
    (
        "evaluate RUNS/vqvae --importance-samples 5",
        "importance samples from, got VQVAE, whose bound is the same for all samples",
    ),
    (
        "evaluate RUNS/pixelcnn --importance-samples 5",
        "importance samples from, got GatedPixelCNN, whose likelihood is exact; leave",
    ),
    ("evaluate RUNS/vqvae --seed -1", "expected a seed of 0 or more"),
    ("evaluate unfinished", "got a run that has not finished a stage; go on with: "),
    ("report nope", "expected a run directory, got nope without run.json"),
    ("report damaged", "expected JSON in damaged/run.json"),
    ("push RUNS/vqvae", "expected OWNER/NAME, got none"),
    ("push unfinished a/b", "got a run that has not finished a stage"),
    ("push RUNS/vqvae a/b", "expected to reach the Hugging Face Hub"),
]


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def lay_traps(runs):
    """Fill the current folder with what people hand to commands by mistake."""
    for name in ("empty", "broken", "other", "damaged", "partial", "listed", "unfinished"):
        Path(name).mkdir()
    Path("here/vqvae").mkdir(parents=True)
    Path("file").write_text("a file")
    Path("other/thesis.tex").write_text("years of work")
    for i in range(3):
        Path(f"broken/{i}.png").write_text("no image")
    manifest = json.loads((runs / "vqvae/run.json").read_text())
    Path("unfinished/run.json").write_text(json.dumps(manifest))
    Path("damaged/run.json").write_text(json.dumps(manifest)[:-9])
    Path("partial/run.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "data"}))
    Path("listed/run.json").write_text("[]")

    for name in ("pickled", "torn", "weightless", "foreign", "misfit", "specless"):
        shutil.copytree(runs / "vqvae/model", name)
    torch.save({"weights": Trap()}, "pickled/model.safetensors")
    weights = Path("torn/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-50])
    Path("weightless/model.safetensors").unlink()
    config = json.loads(Path("misfit/config.json").read_text())
    Path("foreign/config.json").write_text(json.dumps(config | {"class": "Glow"}))
    Path("misfit/config.json").write_text(json.dumps(config | {"config": config["config"] | {"width": 16}}))
    Path("specless/config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "spec"}))

    files = {"section": {"modle": {}}, "key": {"model": {"widht": 3}}, "type": {"model": {"width": "wide"}},
             "stage": {"stages": {"priors": {}}}, "stages": {"stages": []}, "list": []}  # fmt: skip
    for name, value in files.items():
        Path(f"{name}.json").write_text(json.dumps(value))

    maps = {"good": np.zeros((2, 1, 4, 4), np.uint8), "floats": np.zeros((2, 1, 4, 4)), "number": np.array(3),
            "high": np.full((2, 1, 4, 4), 8),
            "low": np.full((2, 1, 4, 4), -1), "shape": np.zeros((2, 1, 5, 5), int),
            "none": np.zeros((0, 1, 4, 4), int)}  # fmt: skip
    for name, value in maps.items():
        np.save(f"{name}.npy", value)
    np.save("objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("pickle.npy", "pickle.safetensors"):
        Path(name).write_bytes(pickle.dumps(Trap()))
    np.savez("archive.npz", a=maps["good"])
    Path("archive.npz").rename("archive.npy")
    good = torch.from_numpy(maps["good"])
    save_file({"level0": good, "level1": good.clone()}, "levels.safetensors")
    save_file({"levelx": good}, "names.safetensors")
    save_file({"level0": torch.tensor(3)}, "scalar.safetensors")


def contents(*folders):
    return {
        p: (p.stat().st_mtime_ns, p.stat().st_size)
        for folder in folders
        for p in Path(folder).rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line.replace("/", "·") for line, _ in MISTAKES])
def test_mistake_is_one_line(call, runs, line, message):
    lay_traps(runs)
    before = contents(".", runs)
    status, output, errors = call(line)
    assert status == 2
    assert output == ""
    assert message in errors
    assert re.fullmatch(r"ancestral: .+; .+\n", errors), "one line: what is wrong; what to do"
    assert contents(".", runs) == before, "nothing is written"
    assert not Path("out").exists(), "the mended command must find the folder free"
    assert not Path("unpickled").exists()


def test_labels_of_a_model_that_does_not_draw_by_class(call):
    line = f"gated-pixelcnn --data digits {TRAINING} {stage('training', 2)} --training.no-compile"
    assert call(f"train {line} --model.width 8 --model.layers 1 --out plain")[0] == 0
    status, output, errors = call("sample plain --labels 1")
    assert (status, output) == (2, "")
    assert errors.startswith(
        "ancestral: expected no labels, got some: this GatedPixelCNN does not draw by class; "
        "leave labels out, or "
    )


def test_place_that_cannot_be_written(call):
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc, where nobody may write")
    for line in (
        "train vqvae --data digits --out /proc/run",
        "sample RUNS/vqvae --out /proc/run",
        "tokenize RUNS/vqvae --out /proc/c.npy",
    ):
        status, _, errors = call(line)
        assert status == 2
        assert re.fullmatch(r"ancestral: expected .*/proc/.*, got: .*; .*\n", errors)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("may not mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # TensorBoard's thread; main() keeps it quiet
def test_full_disk_while_training(call, small_disk):
    status, _, errors = call(f"train {TRAIN['vqvae']} --out disk/run")
    assert status == 2
    assert re.fullmatch(
        r"ancestral: expected room to write.*, got a full disk; "
        r"free some space and give the same command again\n",
        errors,
    )
    assert not list(small_disk.rglob("*.tmp"))


@pytest.mark.parametrize(
    "line",
    [
        "sample RUNS/vqvae --out disk",
        "sample RUNS/vqvae --out disk --format npz",
        "tokenize RUNS/vqvae --out disk/c.npy",
        "reconstruct RUNS/vqvae --out disk",
    ],
)
def test_full_disk_leaves_no_halves(call, small_disk, line):
    with contextlib.suppress(OSError):
        (small_disk / "rest").write_bytes(bytes(2**20))
    status, _, errors = call(line)
    assert status == 2
    assert "got a full disk; free some space and give the same command again" in errors
    assert [p.name for p in small_disk.iterdir()] == ["rest"]


@pytest.mark.parametrize(
    "command", ["sample RUNS/vqvae --out .", "evaluate RUNS/vqvae", "tokenize RUNS/vqvae --out c.npy"]
)
def test_interrupted(call, runs, monkeypatch, tmp_path, command):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    cls = model_class("vqvae")
    for name in ("sample", "tokenize", "to_codes"):
        monkeypatch.setattr(cls, name, interrupt)
    before = contents(runs)
    assert call(command) == (130, "", "ancestral: stopped\n")
    assert contents(runs) == before
    assert not list(tmp_path.iterdir())


def test_a_bug_is_a_traceback(call, monkeypatch):
    """What is no mistake of the user's must not be dressed up as one."""
    monkeypatch.setattr(model_class("vqvae"), "sample", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("sample RUNS/vqvae")
