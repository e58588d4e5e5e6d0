"""``ancestral tokenize`` into a folder, and ``detokenize`` of one."""

import shlex
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from ancestral.cli import detokenize
from ancestral.cli import main as commands
from ancestral.data import load_data
from ancestral.evaluation import read_code_shards, read_codes, write_codes
from ancestral.media import picture, write_png
from ancestral.runs import load

TRAIN = (
    "train vqvae --data digits --device cpu --sample-every 0 --evaluate-every 0 --tokenizer.steps 2 "
    "--prior.steps 1 --tokenizer.batch-size 16 --prior.batch-size 16 --model.quantizer.codebook-size 8 "
    "--model.quantizer.dim 4 --model.stride 2 --model.width 8 --model.blocks 1 --model.residual-width 4 "
    "--model.components 2 --model.prior.width 8 --model.prior.layers 2 --model.prior.head 8"
)
VAE = "train vae --data digits --device cpu --sample-every 0 --training.steps 1 --model.latents 2"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, line in {"vqvae": TRAIN, "other": f"{TRAIN} --seed 1", "vae": VAE}.items():
        assert commands.run([*shlex.split(line), "--out", str(folder / name)]) == 0
    return folder


def test_codes_go_into_a_folder_and_come_back(call, runs):
    assert call("tokenize RUNS/vqvae --out codes --split all") == (
        0,
        "codes: train (1536, 1, 4, 4) uint8\n"
        "codes: validation (81, 1, 4, 4) uint8\n"
        "codes: test (180, 1, 4, 4) uint8\n",
        "",
    )
    loaded = datasets.load_dataset("codes", cache_dir="cache")
    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": 1536,
        "validation": 81,
        "test": 180,
    }
    assert call("tokenize RUNS/vqvae --out codes.safetensors --split all")[0] == 0
    assert torch.equal(read_codes("codes")[0], read_codes("codes.safetensors")[0])
    assert call("detokenize RUNS/vqvae codes --out folder") == (0, "folder/codes.npz\n", "")
    assert call("detokenize RUNS/vqvae codes.safetensors --out file")[0] == 0
    folder, file = np.load("folder/codes.npz"), np.load("file/codes.npz")
    labels = load_data("digits").split("all").labels
    for name in ("x", "labels"):
        assert np.array_equal(folder[name], file[name])
    assert np.array_equal(folder["labels"], labels)
    assert call("detokenize RUNS/vqvae ./codes/ --n 7 --format sheet") == (0, "codes.png\n", "")
    model = load(runs / "vqvae")
    write_png(Path("expected.png"), picture(model.spec, model.detokenize(read_codes("codes", 7))))
    assert Path("codes.png").read_bytes() == Path("expected.png").read_bytes()
    assert call("detokenize RUNS/vqvae codes --n 3 --format files")[1] == "codes\n"


def test_a_folder_is_decoded_part_after_part(call, monkeypatch):
    assert call("tokenize RUNS/vqvae --out codes --split all")[0] == 0
    assert call("tokenize RUNS/vqvae --out codes.safetensors --split all")[0] == 0
    assert call("detokenize RUNS/vqvae codes")[0] == 0
    whole = np.load("codes.npz")
    monkeypatch.setattr(detokenize, "_SHARD", 700)
    for line, sizes in {
        "codes --out whole": [700, 700, 136, 81, 180],
        "codes --out part --n 1450": [700, 700, 50],
        "codes.safetensors --out file": [700, 700, 397],
    }.items():
        out = line.split()[2]
        status, output, _ = call(f"detokenize RUNS/vqvae --format shards {line}")
        assert (status, output) == (0, f"{out}/codes-decoded\n")
        parts = [np.load(path) for path in sorted(Path(out, "codes-decoded").iterdir())]
        assert [len(part["x"]) for part in parts] == sizes
        for name in ("x", "labels"):
            joined = np.concatenate([part[name] for part in parts])
            assert np.array_equal(joined, whole[name][: sum(sizes)])
    status, _, errors = call("detokenize RUNS/vqvae --format shards codes --out whole")
    assert (status, errors) == (
        2,
        "ancestral: expected a new folder, got whole/codes-decoded which is there already; "
        "choose another --out\n",
    )
    assert call("detokenize RUNS/vqvae --format shards codes --n 0")[0] == 2


def test_several_processes_do_not_write_one_file(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for name in ("codes.npy", "codes.safetensors"):
        status, _, errors = call(f"tokenize RUNS/vqvae --out {name}")
        assert (status, errors) == (
            2,
            f"ancestral: expected one process to write {name}, got 2; "
            "leave the ending out for a folder, whose shards they share\n",
        )
        assert not Path(name).exists()
    status, output, _ = call("tokenize RUNS/vqvae --out codes --split all")
    assert (status, output) == (0, "codes: process 1 of 2 is done with its 1 of 3 shards\n")


def test_a_tokenizer_does_not_complete(call):
    status, output, errors = call("complete RUNS/vqvae --temperature 1,0.9")
    assert (status, output) == (2, "")
    assert errors.startswith("ancestral: expected a model that completes examples, got VQVAE; train an")


def test_the_same_command_goes_on(call):
    line = "tokenize RUNS/vqvae --out codes-0.5"
    assert call(line)[:2] == (0, "codes-0.5: train (1536, 1, 4, 4) uint8\n")
    (shard,) = Path("codes-0.5/data").iterdir()
    whole, made = shard.read_bytes(), shard.stat().st_mtime_ns
    assert call(line)[0] == 0
    assert shard.stat().st_mtime_ns == made
    shard.write_bytes(whole[:100])
    status, _, errors = call("detokenize RUNS/vqvae codes-0.5 --n 3")
    assert (status, errors.count("\n")) == (2, 1)
    command = read_code_shards("codes-0.5").manifest.command(Path("codes-0.5"))
    assert errors.endswith(f"; mend it with: {command}\n")
    assert call(command.replace("ancestral ", "", 1).replace("RUN", "RUNS/vqvae", 1))[0] == 0
    assert shard.read_bytes() == whole


def test_codes_of_other_weights_are_decoded_with_a_word(call, runs):
    assert call("tokenize RUNS/vqvae --out codes")[0] == 0
    status, output, errors = call("detokenize RUNS/other codes --n 3")
    assert (status, output) == (0, "codes.npz\n")
    assert errors == (
        "ancestral: the codes in codes were made with other weights, and may decode to noise with these\n"
    )
    model = load(runs / "vqvae")  # which is saved again, and has another prior
    next(model.prior.parameters()).data.add_(1)
    model.save_pretrained("again")
    assert call("detokenize again codes --n 3")[2] == ""
    assert call("tokenize again --data digits --out codes")[0] == 0


MISTAKES = [
    ("tokenize RUNS/vqvae --out c.npz", "got c.npz; change its ending, or leave it out for a folder"),
    (
        "tokenize RUNS/vqvae --out taken",
        "expected a new or an empty folder, got taken which holds something else",
    ),
    (
        "tokenize RUNS/vqvae --out file/codes",
        "expected to write file/codes/manifest.json, got file which is no",
    ),
    ("tokenize RUNS/other --out begun", "got begun which holds codes of something else: weights ("),
    (
        "tokenize RUNS/vqvae --out begun --split test",
        "something else: splits.test (None there, 180 here), splits",
    ),
    ("tokenize RUNS/vae --out codes", "expected a model with code maps, got VAE; train a tokenizer"),
    ("tokenize RUNS/vqvae --out codes --data nope", "there is no data set 'nope', nor such a folder"),
    ("detokenize RUNS/vqvae taken", "expected the file taken/manifest.json, got nothing there"),
    ("detokenize RUNS/vae begun", "expected a model with code maps, got VAE"),
    ("detokenize RUNS/vqvae begun --n 0", "expected at least 1 example, got 0"),
    (
        "detokenize RUNS/vqvae half",
        "expected 1 shards in half, got 0; go on with: ancestral tokenize RUN --data",
    ),
]


@pytest.mark.parametrize(("line", "problem"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes_are_one_line(call, tmp_path, line, problem):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    if "begun" in line or "half" in line:
        assert call("tokenize RUNS/vqvae --out begun")[0] == 0
        shutil.copytree("begun", "half")
        shutil.rmtree("half/data")
    before = sorted(tmp_path.rglob("*"))
    status, output, errors = call(line)
    assert (status, output) == (2, "")
    assert problem in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_codes_that_others_wrote_are_still_files(call):
    write_codes("mine.npy", (torch.arange(16).view(1, 1, 4, 4) % 8,))
    assert call("detokenize RUNS/vqvae mine.npy") == (0, "mine.npz\n", "")
