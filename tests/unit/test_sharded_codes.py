"""Codes as shards: what others read out of the folder, kills, damage, processes, and what is refused."""

import builtins
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_evaluation import build
from test_integrity import dead_process, killed_at, stray
from torch import nn

import ancestral
from ancestral import memory
from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, ImageOptions, load_data
from ancestral.errors import UserError
from ancestral.evaluation import (
    code_parquet,
    detokenize,
    read_codes,
    sharded_codes,
    tokenize,
    tokenize_shards,
)
from ancestral.evaluation.code_files import read_labeled_codes
from ancestral.evaluation.tokens import codes_checksum
from ancestral.files import Damaged
from ancestral.model import Model
from ancestral.models.latent.vae import VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.models.latent.vqvae2 import VQVAE2
from ancestral.spec import Spec
from ancestral.stages import Phase, Stage

SPEC = Spec(shape=(1, 4, 4), levels=16, classes=3)
SPLITS = {"train": 250, "validation": 30, "test": 70}


class TwoLevels(Tokenizer):
    """Values divided by a number: the sum of each quarter coarse, two maps of all values fine."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.scale_by = nn.Linear(1, 1)
        self.prior = nn.Linear(2, 2)
        self.asked = []

    def stages(self):
        return (
            Stage("tokenizer", (Phase("tokenizer", (self.scale_by,)),), samples=False),
            Stage("prior", (Phase("prior", (self.prior,)),), prepare=lambda batch: batch),
        )

    def loss(self, batch, phase, progress):
        raise NotImplementedError

    def draw(self, n, labels, contexts, options, *, generator, progress):
        raise NotImplementedError

    def code_specs(self):
        fine = Spec(shape=(2, 4, 4), levels=16, domain="codes", classes=3)
        return Spec(shape=(1, 2, 2), levels=1000, domain="codes", classes=3), fine

    def tokenize(self, x):
        self.asked.append(len(x))
        coarse = x.long().unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2)) * 16
        return coarse, torch.cat([x, 15 - x], 1).long()

    def detokenize(self, codes):
        self.check_codes(codes)
        return codes[1][:, :1].to(self.spec.dtype)

    def reconstruct(self, x):
        return x

    rates = distortion = code_vectors = None


def examples(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(16, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Batch(x, torch.randint(3, (n,), generator=generator))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoLevels(TwoLevels.Config(), SPEC)


@pytest.fixture(scope="module")
def data():
    parts = {name: examples(n, seed) for seed, (name, n) in enumerate(SPLITS.items())}
    names = {name: tuple(f"{name}/é{i}.png" for i in range(n)) for name, n in SPLITS.items()}
    return Dataset(source="mine", spec=SPEC, classes=("cat", "dog", "owl"), names=names, **parts)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", ImageOptions())


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A tokenizer that other processes load."""
    folder = tmp_path_factory.mktemp("model") / "model"
    build(VQVAE, digits).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(sharded_codes, "_SHARD", 100)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def shard(folder, k=0, count=3, split="train"):
    return folder / "data" / f"{split}-{k:05d}-of-{count:05d}.parquet"


def opened(folder, cache):
    """The folder as anybody opens it."""
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def test_others_open_the_folder_without_a_script(model, data, tmp_path, small, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shards = tokenize_shards(model, tmp_path / "codes", data, split="all")
    assert len(shards) == 350
    assert sorted(contents(tmp_path / "codes")) == [
        "data/test-00000-of-00001.parquet",
        *(f"data/train-{k:05d}-of-00003.parquet" for k in range(3)),
        "data/validation-00000-of-00001.parquet",
        "manifest.json",
    ]
    loaded = opened(tmp_path / "codes", tmp_path / "cache")
    assert {split: len(rows) for split, rows in loaded.items()} == SPLITS
    for split, rows in loaded.items():
        assert rows.features == datasets.Features(
            level0=datasets.Array3D((1, 2, 2), "int16"),
            level1=datasets.Array3D((2, 4, 4), "uint8"),
            label=datasets.ClassLabel(names=["cat", "dog", "owl"]),
            name=datasets.Value("string"),
        )
        part, columns = data.split(split), rows.with_format("torch")[:]
        for level, expected in enumerate(model.tokenize(part.x)):
            assert torch.equal(columns[f"level{level}"], expected)
        assert torch.equal(columns["label"], part.labels)
        assert list(rows["name"]) == list(data.names[split])
    schema = pq.read_schema(shard(tmp_path / "codes"))
    nested = pa.list_(pa.list_(pa.list_(pa.int16())))
    assert schema.field("level0").type in (nested, loaded["train"].features.arrow_schema.field("level0").type)


def test_a_split_alone_is_named_for_itself(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path / "codes", data, split="test")
    loaded = opened(tmp_path / "codes", tmp_path / "cache")
    assert {split: len(rows) for split, rows in loaded.items()} == {"test": 70}


def test_without_labels_and_names_there_are_no_such_columns(model, data, tmp_path):
    plain = {name: Batch(data.split(name).x) for name in SPLITS}
    unlabeled = Dataset(source="plain", spec=replace(SPEC, classes=0), **plain)
    manifest = tokenize_shards(model, tmp_path / "codes", unlabeled).manifest
    assert (manifest.classes, manifest.class_names, manifest.names) == (0, (), None)
    assert opened(tmp_path / "codes", tmp_path / "cache")["train"].column_names == ["level0", "level1"]


def test_classes_without_names_are_numbered(model, data, tmp_path):
    tokenize_shards(model, tmp_path / "codes", replace(data, classes=()))
    label = opened(tmp_path / "codes", tmp_path / "cache")["train"].features["label"]
    assert label.num_classes == 3


def test_names_that_are_no_utf8_are_written_out(model, data, tmp_path):
    names = {name: (os.fsdecode(b"caf\xe9.png"),) * n for name, n in SPLITS.items()}
    tokenize_shards(model, tmp_path, replace(data, names=names))
    assert pq.read_table(shard(tmp_path, count=1))["name"][0].as_py() == r"caf\udce9.png"


def test_the_manifest_tells_what_others_need(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path, data)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["levels"] == [
        {"shape": [1, 2, 2], "codebook_size": 1000, "dtype": "int16"},
        {"shape": [2, 4, 4], "codebook_size": 16, "dtype": "uint8"},
    ]
    assert written["splits"] == {"train": 250}
    assert (written["shard"], written["class_names"], written["data"]) == (100, ["cat", "dog", "owl"], "mine")
    assert (written["fingerprint"], written["weights"]) == (data.fingerprint, codes_checksum(model))
    for change, problem in (
        (
            {"levels": [{"shape": [1, 2], "codebook_size": 4, "dtype": "uint8"}]},
            "levels.0.shape to have 3 values",
        ),
        ({"splits": {"train": 0}}, "expected splits of at least 1"),
        ({"extra": 1}, "expected an option of CodesManifest, got extra"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(written | change))
        for call in (lambda: read_codes(tmp_path), lambda: tokenize_shards(model, tmp_path, data)):
            with pytest.raises(Damaged, match=problem):
                call()


def test_codes_are_read_back_in_order(model, data, tmp_path, small):
    shards = tokenize_shards(model, tmp_path, data, split="all")
    x = data.split("all").x
    expected = model.tokenize(x)
    codes = read_codes(tmp_path)
    assert [c.dtype for c in codes] == [torch.int16, torch.uint8]
    assert all(map(torch.equal, codes, [e.to(c.dtype) for c, e in zip(codes, expected, strict=True)]))
    assert [len(levels[0]) for levels in shards] == [100, 100, 50, 30, 70]
    for limit in (1, 100, 101, 260, 10**6):
        few = read_codes(str(tmp_path), limit)
        assert all(torch.equal(a, b[:limit]) for a, b in zip(few, codes, strict=True))
    assert torch.equal(detokenize(model, codes), x)
    with pytest.raises(UserError, match="expected at least 1 example, got 0"):
        read_codes(tmp_path, 0)


@pytest.mark.parametrize("cls", [VQVAE, VQVAE2])
def test_a_folder_holds_what_one_file_does(digits, tmp_path, small, cls):
    model = build(cls, digits)
    codes, labels = tokenize(model, digits)
    ancestral.write_codes(tmp_path / "codes.safetensors", codes, labels)
    tokenize_shards(model, tmp_path / "codes", digits)
    folder, file = read_codes(tmp_path / "codes"), read_codes(tmp_path / "codes.safetensors")
    assert [level.dtype for level in folder] == [level.dtype for level in file]
    assert all(map(torch.equal, folder, file))
    assert torch.equal(detokenize(model, folder), detokenize(model, file))
    column = opened(tmp_path / "codes", tmp_path / "cache")["train"].with_format("torch")["label"]
    assert torch.equal(column[:], labels)


def test_no_more_than_a_shard_is_read_and_made_at_once(model, data, tmp_path, small, monkeypatch):
    class Watched(Batch):
        """Examples of which slices alone may be taken."""

        def __getitem__(self, index):
            assert index.stop - index.start <= 100
            return super().__getitem__(index)

    watched = {name: Watched(data.split(name).x, data.split(name).labels) for name in SPLITS}
    model.asked = []
    tokenize_shards(model, tmp_path, replace(data, **watched), split="all")
    assert max(model.asked) == 50
    assert sum(model.asked) == 350


def test_whole_shards_stay_and_missing_ones_are_made(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path, data)
    whole = contents(tmp_path)
    shard(tmp_path, 1).unlink()
    with pytest.raises(
        UserError,
        match=r"expected 3 shards in .*, got 2; go on with: ancestral tokenize RUN --data mine --split train",
    ):
        read_codes(tmp_path)
    model.asked = []
    tokenize_shards(model, tmp_path, data)
    assert sum(model.asked) == 100
    assert contents(tmp_path) == whole


def rewritten(change):
    def damage(path):
        table = change(pq.read_table(path))
        pq.write_table(table, path)

    return damage


def flipped(path):
    bits = bytearray(path.read_bytes())
    bits[len(bits) // 4] ^= 16
    path.write_bytes(bits)


def column(table, name, values):
    return table.set_column(table.column_names.index(name), table.schema.field(name), values)


def wrong_values(name, values):
    def change(table):
        kind = table.schema.field(name).type
        storage = pa.array([values] * len(table), kind.storage_type)
        return column(table, name, pa.ExtensionArray.from_storage(kind, storage))

    return rewritten(change)


DAMAGES = {
    "missing": Path.unlink,
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "flipped": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("codes"),
    "fewer": rewritten(lambda table: table.slice(0, 99)),
    "without labels": rewritten(lambda table: table.drop_columns(["label"])),
    "out of range": wrong_values("level0", [[[1000, 0], [0, 0]]]),
    "other shape": wrong_values("level1", [[[1, 2]]]),
    "ragged": wrong_values("level0", [[[1, 2, 3], [4]]]),
    "a code missing": wrong_values("level0", [[[1, None], [0, 0]]]),
    "labels out of range": rewritten(lambda t: column(t, "label", pa.array([3] * len(t), pa.int64()))),
    "labels missing": rewritten(lambda t: column(t, "label", pa.array([None] * len(t), pa.int64()))),
    "others know no classes": rewritten(lambda table: table.replace_schema_metadata({})),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_an_error_to_read_and_made_anew(model, data, tmp_path, small, damage):
    tokenize_shards(model, tmp_path, data)
    whole = contents(tmp_path)
    damage(shard(tmp_path, 1))
    with pytest.raises(UserError) as told:
        read_codes(tmp_path)
    assert "with: ancestral tokenize RUN --data mine" in str(told.value)
    assert "\n" not in str(told.value)
    model.asked = []
    tokenize_shards(model, tmp_path, data)
    assert sum(model.asked) == 100
    assert contents(tmp_path) == whole


def test_no_flipped_byte_changes_a_code(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path, data, split="validation")
    path = shard(tmp_path, 0, 1, "validation")
    whole, expected = path.read_bytes(), read_codes(tmp_path)
    found = 0
    for place in range(0, len(whole), 7):
        bits = bytearray(whole)
        bits[place] ^= 16
        path.write_bytes(bits)
        try:
            codes = read_codes(tmp_path)
        except UserError:
            found += 1
        else:
            assert all(map(torch.equal, codes, expected)), place
    assert found


def test_a_shard_that_may_not_be_read_is_no_damage(model, data, tmp_path, small, monkeypatch):
    tokenize_shards(model, tmp_path, data)

    def refuse(path):
        raise UserError(f"expected to read {path}, got: Permission denied", "check who may read it")

    monkeypatch.setattr(code_parquet, "check_readable", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        tokenize_shards(model, tmp_path, data)


def test_killed_at_any_write_the_same_call_ends_with_the_same_shards(
    model, data, tmp_path, small, monkeypatch
):
    expected = contents(tokenize_shards(model, tmp_path / "whole", data).path)
    number = 1
    while True:
        out = tmp_path / f"out{number}"

        def work(out=out):
            tokenize_shards(model, out, data)

        if not killed_at(monkeypatch, number, work):
            break
        for path in out.rglob("*.parquet") if out.exists() else ():
            if path.parent.name == "data":
                assert path.read_bytes() == expected[str(path.relative_to(out))], f"write point {number}"
        work()
        assert contents(out) == expected, f"killed at write point {number}"
        assert not stray(out), f"killed at write point {number}"
        shutil.rmtree(out)
        number += 1
    assert number > 20


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path, data)
    name = shard(tmp_path).name
    dead, alive = (tmp_path / "data" / f".{name}.{pid}.tmp" for pid in (dead_process(), os.getppid()))
    dead.mkdir(), alive.mkdir()
    tokenize_shards(model, tmp_path, data)
    assert (dead.exists(), alive.exists()) == (False, True)


SCRIPT = """
import sys
from ancestral.evaluation import sharded_codes
from ancestral.cli.main import main
sharded_codes._SHARD = 20  # so many that a kill finds it at work
main()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The command line with small shards."""
    path = tmp_path_factory.mktemp("program") / "small_shards.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def alone(saved, tmp_path_factory):
    """All digits by one process that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharded_codes, "_SHARD", 20)
        return contents(tokenize_shards(saved, tmp_path_factory.mktemp("alone"), "digits", split="all").path)


def command(program, saved, out):
    return f"{program} tokenize {saved} --data digits --split all --out {out} --device cpu".split()


def test_killed_for_real_and_gone_on_with(program, saved, alone, start, stop, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_codes, "_SHARD", 20)
    out = tmp_path / "codes"
    words = command(program, saved, out)[1:]
    process = start(program.read_text(), *words, said=tmp_path / "output.txt", HF_HUB_OFFLINE="1")
    assert stop(process, signal.SIGKILL, lambda: shard(out, 0, 77).exists()) == -signal.SIGKILL
    there = {name: data for name, data in contents(out).items() if ".tmp" not in name}
    assert there.items() <= alone.items(), "what is there is whole"
    assert len(there) < len(alone), "it was in the middle"
    tokenize_shards(saved, out, "digits", split="all")
    assert contents(out) == alone


def test_two_processes_make_what_one_does(program, saved, alone, two_processes, tmp_path):
    out = tmp_path / "codes"
    lines = two_processes(command(program, saved, out)).splitlines()
    said = [line for line in lines if not line.startswith("[")]  # what PyTorch's C++ warns of
    assert said == [
        f"{out}: process {rank} of 2 is done with its {own} of 91 shards" for rank, own in ((0, 46), (1, 45))
    ], "neither speaks for the other"
    assert contents(out) == alone


def test_each_process_makes_its_own_shards(model, data, tmp_path, small, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    shards = tokenize_shards(model, tmp_path, data)
    assert sorted(contents(tmp_path)) == ["data/train-00001-of-00003.parquet", "manifest.json"]
    with pytest.raises(UserError, match=r"got nothing there; mend it with: ancestral tokenize RUN"):
        shards.codes()
    monkeypatch.setenv("RANK", "0")
    tokenize_shards(model, tmp_path, data)
    assert len(read_codes(tmp_path)[0]) == 250


def test_codes_of_something_else_are_named_and_nothing_is_overwritten(model, data, tmp_path, small):
    tokenize_shards(model, tmp_path, data)
    before = contents(tmp_path)
    other = TwoLevels(TwoLevels.Config(), SPEC)
    changed = replace(data, train=examples(250, seed=9), fingerprint="")
    renamed = replace(data, names={name: (*names[:-1], "x") for name, names in data.names.items()})
    for arguments, named in (
        ((other, data), r"weights \([0-9a-f]{64} there"),
        ((model, changed), r"fingerprint \([0-9a-f]{64} there"),
        ((model, renamed), r"names \([0-9a-f]{64} there"),
        (
            (model, replace(data, classes=("cat", "dog", "emu"))),
            r"class_names \(\['cat', 'dog', 'owl'\] there",
        ),
    ):
        with pytest.raises(
            UserError, match=rf"the same codes, got .* holds codes of something else: {named}"
        ):
            tokenize_shards(arguments[0], tmp_path, arguments[1])
    with pytest.raises(
        UserError, match=r"else: splits.test \(None there, 70 here\), splits.train \(250 there"
    ):
        tokenize_shards(model, tmp_path, data, split="test")
    assert contents(tmp_path) == before


def test_another_prior_makes_the_same_codes(model, data, tmp_path, small, digits):
    tokenize_shards(model, tmp_path, data)
    nn.init.zeros_(model.prior.weight)
    model.asked = []
    tokenize_shards(model, tmp_path, data)
    assert model.asked == []
    vqvae = build(VQVAE, digits)
    before = codes_checksum(vqvae)
    for part, same in ((vqvae.prior, True), (vqvae.decoder, False)):
        next(part.parameters()).data.add_(1)
        assert (codes_checksum(vqvae) == before) == same


def test_a_tokenizer_of_one_stage_is_known_by_all_its_weights(model):
    model.stages = lambda: (Stage("all", (Phase("all", (model.prior,)),), prepare=lambda batch: batch),)
    before = codes_checksum(model)
    nn.init.zeros_(model.prior.weight)
    assert codes_checksum(model) != before


def test_other_folders_and_models_are_refused(model, data, digits, tmp_path):
    (tmp_path / "thesis.tex").touch()
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(
            UserError, match=r"expected a new or an empty folder, got .* holds something else"
        ):
            tokenize_shards(model, out, data)
    with pytest.raises(UserError, match="expected a model with code maps, got VAE"):
        tokenize_shards(build(VAE, digits), tmp_path / "out", digits)
    with pytest.raises(UserError, match="expected examples of shape"):
        tokenize_shards(model, tmp_path / "out", digits)
    with pytest.raises(UserError, match="expected a split, got tset"):
        tokenize_shards(model, tmp_path / "out", data, split="tset")
    with pytest.raises(UserError, match=r"expected the file .*manifest.json, got nothing there"):
        read_codes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_codes_of_another_model_are_not_decoded(model, data, digits, tmp_path):
    tokenize_shards(model, tmp_path, data)
    with pytest.raises(UserError, match=r"expected 1 code map \(one for each level\), got 2"):
        detokenize(build(VQVAE, digits), read_codes(tmp_path))


def test_what_does_not_fit_into_memory_is_told(model, data, tmp_path, monkeypatch):
    tokenize_shards(model, tmp_path, data)
    codes = read_codes(tmp_path)
    monkeypatch.setattr(memory, "_memory", lambda: 250 * 16 - 1)
    with pytest.raises(
        UserError, match=r"expected 250 code maps to fit into memory, .*; ask for fewer \(--n\)"
    ):
        read_codes(tmp_path)
    assert len(read_codes(tmp_path, 50)[0]) == 50
    with pytest.raises(
        UserError, match=r"expected 250 decoded examples to fit into memory, .*; decode fewer"
    ):
        detokenize(model, codes)


def test_without_the_package_one_line_says_how_to_get_it(model, data, tmp_path, monkeypatch):
    there = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "datasets":
            raise ImportError(name)
        return there(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"got none; pip install 'ancestral\[hub\]', or write .safetensors"):
        tokenize_shards(model, tmp_path / "codes", data)
    assert not (tmp_path / "codes").exists()


def test_labels_are_read_with_the_codes(model, data, tmp_path, small):
    shards = tokenize_shards(model, tmp_path / "codes", data, split="all")
    labels = data.split("all").labels
    for limit in (None, 1, 120, 260):
        codes = read_labeled_codes(tmp_path / "codes", limit)
        assert torch.equal(codes.labels, labels[:limit])
        assert all(map(torch.equal, codes.levels, read_codes(tmp_path / "codes", limit)))
    assert torch.equal(torch.cat([codes.labels for codes in shards.labeled()]), labels)
    plain = {name: Batch(data.split(name).x) for name in SPLITS}
    unlabeled = Dataset(source="plain", spec=replace(SPEC, classes=0), **plain)
    tokenize_shards(model, tmp_path / "plain", unlabeled)
    assert read_labeled_codes(tmp_path / "plain").labels is None
    ancestral.write_codes(tmp_path / "codes.safetensors", codes.levels, codes.labels)
    assert torch.equal(read_labeled_codes(tmp_path / "codes.safetensors", 5).labels, labels[:5])
    for wrong in (labels[:7], labels[:260].float(), labels[:260, None]):
        ancestral.write_codes(tmp_path / "codes.safetensors", codes.levels, wrong)
        with pytest.raises(UserError, match=r"expected an integer in labels for each example of .*codes"):
            read_labeled_codes(tmp_path / "codes.safetensors")


def test_shards_of_large_maps_have_fewer_examples(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_codes, "_BYTES", 60 * (4 * 2 + 32))  # a level of int16, one of uint8
    shards = tokenize_shards(model, tmp_path, data)
    assert [len(levels[0]) for levels in shards] == [60, 60, 60, 60, 10]
    assert torch.equal(shards.codes()[1].long(), model.tokenize(data.train.x)[1])


def test_known_examples_are_not_looked_at_again(model, data, tmp_path, small, monkeypatch):
    expected = model.tokenize(data.train.x)
    monkeypatch.setattr(model, "to_codes", TwoLevels.tokenize.__get__(model), raising=False)
    monkeypatch.setattr(model, "tokenize", None)
    codes = tokenize_shards(model, tmp_path, data).codes()
    assert all(map(torch.equal, codes, [e.to(c.dtype) for c, e in zip(codes, expected, strict=True)]))


def test_a_shard_that_cannot_be_written_ends_the_work(model, data, tmp_path, small, monkeypatch):
    def full(*arguments, **options):
        raise UserError("expected room, got a full disk", "free some space")

    monkeypatch.setattr(sharded_codes, "write_shard", full)
    for split in ("train", "test"):  # several shards, one
        with pytest.raises(UserError, match="got a full disk"):
            tokenize_shards(model, tmp_path / split, data, split=split)


def test_values_survive_the_largest_codebooks(tmp_path):
    level = code_parquet.Level(shape=(1, 1, 2), codebook_size=2**31, dtype="int32")
    manifest = code_parquet.CodesManifest(
        levels=(level,), splits={"train": 2}, shard=2, classes=0, class_names=(), names=None,
        data="", fingerprint="", model="", weights="",
    )  # fmt: skip
    (part,) = manifest.parts()
    codes = torch.tensor([[[[0, 2**31 - 1]]], [[[5, 256]]]], dtype=torch.int32)
    code_parquet.write_shard(tmp_path, manifest, part, code_parquet.Codes((codes,), None), names=None)
    assert torch.equal(code_parquet.read_shard(tmp_path, manifest, part).levels[0], codes)
    assert np.array_equal(
        np.array(pq.read_table(tmp_path / manifest.path(part))["level0"].to_pylist()), codes
    )


@pytest.fixture(scope="module")
def prior():
    """The script of examples/prior.py as a module."""
    path = Path(__file__).parents[2] / "examples" / "prior.py"
    spec = importlib.util.spec_from_file_location("prior_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["prior_example"] = module
    spec.loader.exec_module(module)
    return module


def test_the_example_trains_on_a_folder_and_draws_codes(
    prior, model, data, tmp_path, small, monkeypatch, capsys
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tokenize_shards(model, tmp_path / "codes", data, split="all")
    torch.manual_seed(0)
    trained, layout = prior.train(tmp_path / "codes", steps=3, batch_size=16, width=32, layers=1)
    assert re.search(r"step 3/3  train \d+\.\d+ bits/code  validation \d", capsys.readouterr().out)
    codes, labels = prior.draw(trained, layout, 5)
    ancestral.write_codes(tmp_path / "drawn.safetensors", codes, labels)
    back = read_codes(tmp_path / "drawn.safetensors")
    assert detokenize(model, back).shape == (5, 1, 4, 4), "in the range of each level"
    assert labels.tolist() == [0, 1, 2, 0, 1]


def test_the_example_models_codes_in_order_and_by_level(prior, model, data):
    layout = prior.Layout(shapes=((1, 2, 2), (2, 4, 4)), sizes=(1000, 16), classes=3)
    codes = model.tokenize(data.test.x)
    rows = {"level0": codes[0], "level1": codes[1], "label": data.test.labels}
    tokens, classes = layout.tokens(rows)
    assert tokens.shape == (70, 36)
    assert all(map(torch.equal, layout.codes(tokens), codes))
    torch.manual_seed(0)
    prior_model = prior.Prior(layout, width=32, layers=1).eval()
    logits = prior_model(tokens[:, :-1], classes)
    of_level = torch.arange(1016) < 1000
    assert torch.equal(logits[0].isfinite(), torch.stack([of_level] * 4 + [~of_level] * 32))
    changed = tokens.clone()
    changed[:, 20] = 1000 + (changed[:, 20] - 1000 + 1) % 16
    others = prior_model(changed[:, :-1], classes)
    assert torch.allclose(others[:, :21], logits[:, :21], atol=1e-5), "no token sees itself or later ones"
    assert not torch.allclose(others[:, 21], logits[:, 21], atol=1e-3)
    assert not torch.allclose(prior_model(tokens[:, :-1], (classes + 1) % 3)[:, 0], logits[:, 0], atol=1e-3)
