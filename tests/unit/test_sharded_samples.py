"""Samples as shards: what they depend on and what not, kills, damage; and rejection by a gate."""

import json
import os
import re
import shutil
import signal
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluation import build
from test_integrity import dead_process, killed_at, stray
from torch import nn

from ancestral.data import ImageOptions, load_data
from ancestral.errors import UserError
from ancestral.evaluation import read_shards, sample, sample_shards, sharded_samples
from ancestral.evaluation.rejection import candidates, kept, surest
from ancestral.files import Damaged
from ancestral.model import Model
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.latent.vae import VAE
from ancestral.sampling import single
from ancestral.spec import Spec

SPEC = Spec(shape=(1, 4, 4), levels=17, classes=3)


class Noise(Model):
    """Uniform noise; the class, if it draws by class, is the first value of an example."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        conditional: bool = True

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.asked = []
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("flag", torch.tensor(True))

    @property
    def sample_classes(self):
        return self.spec.classes if self.config.conditional else 0

    def loss(self, batch, phase, progress):
        raise NotImplementedError

    def draw(self, n, labels, contexts, options, *, generator, progress):
        self.asked.append(n)
        x = torch.randint(self.spec.levels, (n, *self.spec.shape), generator=generator, dtype=self.spec.dtype)
        if labels is not None:
            x[:, 0, 0, 0] = labels.to(x.dtype)
        return x


class Planted(nn.Module):
    """A gate to which the second value of an example tells the probability of its first, the class."""

    def __init__(self, spec=SPEC):
        super().__init__()
        self.spec, self.device = spec, torch.device("cpu")
        self.weight = nn.Parameter(torch.ones(1))

    def probabilities(self, x):
        first, second = x.flatten(1)[:, 0].long(), x.flatten(1)[:, 1] / 16
        p = (1 - second)[:, None].expand(-1, self.spec.classes) / (self.spec.classes - 1)
        return p.scatter(1, first[:, None], second[:, None])


@pytest.fixture
def noise():
    return Noise(Noise.Config(), SPEC)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", ImageOptions())


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A model that other processes load."""
    folder = tmp_path_factory.mktemp("model") / "model"
    build(GatedPixelCNN, digits).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(sharded_samples, "_SHARD", 10)


class Layered(Noise):
    """Noise that takes options for each of two levels."""

    sampling_levels = 2
    sampling_options = frozenset({"temperature", "top_k", "top_p"})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shard(folder, k=0):
    return folder / f"shard-{k:05d}.npz"


# What shards depend on


def test_options_of_each_level_are_kept_and_recognized(tmp_path, small):
    model = Layered(Layered.Config(), SPEC)
    options = {"temperature": (1, 0.5), "top_k": (2, None), "top_p": [None, 0.9]}
    sample_shards(model, 20, tmp_path, **options)
    asked = len(model.asked)
    manifest = sample_shards(model, 20, tmp_path, **options).manifest
    assert len(model.asked) == asked, "the same samples"
    assert read_shards(tmp_path).manifest == manifest
    assert (manifest.sampling.top_k, manifest.sampling.top_p) == ((2, None), (None, 0.9))
    assert "--temperature 1,0.5 --top-k 2,None --top-p None,0.9" in manifest.command(tmp_path)
    with pytest.raises(UserError, match=r"top_k \(\[2, None\] there, \[None, 2\] here\)"):
        sample_shards(model, 20, tmp_path, **options | {"top_k": (None, 2)})
    with pytest.raises(UserError, match=r"expected one value of an option of sampling, got 2,None"):
        single(manifest.sampling.top_k)


def test_shards_hold_n_examples_with_even_classes(noise, tmp_path):
    noise.asked = []
    shards = sample_shards(noise, 2300, tmp_path / "out", seed=3)
    assert max(noise.asked) == 256, "no more than a batch is drawn at once"
    assert sorted(contents(tmp_path / "out")) == [
        "manifest.json",
        *(shard(tmp_path, k).name for k in range(3)),
    ]
    assert [len(part) for part in shards] == [1000, 1000, 300]
    batch = read_shards(str(tmp_path / "out")).batch()
    assert len(shards) == len(batch) == 2300
    assert torch.equal(batch.labels, torch.arange(2300) % 3), "in turn over the whole set"
    assert torch.equal(batch.x[:, 0, 0, 0].long(), batch.labels)
    assert (batch.x.dtype, batch.x.shape) == (torch.uint8, (2300, 1, 4, 4))
    assert len({tuple(x.flatten().tolist()) for x in batch.x}) == 2300, "no shard repeats another"


def test_examples_drawn_at_once_depend_on_their_size_alone(tmp_path):
    for shape, batch in (((1, 4, 4), 256), ((1, 256, 128), 128), ((3, 512, 512), 16)):
        model = Noise(Noise.Config(), Spec(shape=shape))
        assert sample_shards(model, 1, tmp_path / str(batch)).manifest.batch == batch


def test_a_shard_alone_is_that_of_the_whole(noise, tmp_path, small):
    whole = sample_shards(noise, 45, tmp_path / "whole", seed=1)
    shutil.copytree(tmp_path / "whole", tmp_path / "alone")
    for k in (0, 1, 2, 4):
        shard(tmp_path / "alone", k).unlink()
    read, noise.asked = (tmp_path / "alone"), []
    sample_shards(noise, 45, read, seed=1)
    assert noise.asked == [10, 10, 10, 10], "the one that was there stays"
    assert contents(read) == contents(tmp_path / "whole")
    noise.asked = []
    assert torch.equal(sample_shards(noise, 45, read, seed=1).batch().x, whole.batch().x)
    assert noise.asked == [], "a complete set is only read"


def test_more_may_be_drawn_later_and_fewer_not(noise, tmp_path):
    out = tmp_path / "out"
    first = sample_shards(noise, 1300, out).batch()
    more = sample_shards(noise, 2600, out).batch()
    assert torch.equal(more.x[:1300], first.x), "a short shard is the beginning of the full one"
    assert contents(out) == contents(sample_shards(noise, 2600, tmp_path / "at once").path)
    with pytest.raises(UserError, match=r"expected at least the 2600 samples of \S+, got 2000; raise --n or"):
        sample_shards(noise, 2000, out)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"temperature": 0.5}, r"temperature \(1.0 there, 0.5 here\)"),
        ({"labels": [2, 0]}, r"labels \(\[0, 1, 2\] there, \[2, 0\] here\)"),
        ({"keep": 0.5, "gate": Planted()}, r"gate \(None there, [0-9a-f]{64} here\), keep \(1.0 there, 0.5"),
    ],
)
def test_other_options_are_named_and_nothing_is_overwritten(noise, tmp_path, small, changed, named):
    sample_shards(noise, 20, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"the same samples, got .* with other options: {named}"):
        sample_shards(noise, 30, tmp_path, **changed)
    assert contents(tmp_path) == before


def test_other_weights_are_other_samples(noise, tmp_path, small, digits):
    sample_shards(noise, 20, tmp_path)
    with torch.no_grad():
        noise.weight[1] = -0.0
    with pytest.raises(UserError, match=r"other options: weights \([0-9a-f]{64} there"):
        sample_shards(noise, 20, tmp_path)
    model = build(VAE, digits)
    with pytest.raises(UserError, match=r"model \(\S+:Noise there, vae here\), spec.classes"):
        sample_shards(model, 20, tmp_path)


def test_a_model_without_classes_has_no_labels(tmp_path, digits, small):
    model = build(VAE, digits)
    state = torch.get_rng_state()
    shards = sample_shards(model, 25, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert shards.batch().labels is None
    assert shards.manifest.labels == ()
    with pytest.raises(UserError, match="expected no labels, got some: this VAE does not draw by class"):
        sample_shards(model, 25, tmp_path / "labels", labels=[1])
    assert not (tmp_path / "labels").exists()


def test_the_manifest_is_a_record(noise, tmp_path, small):
    sample_shards(noise, 20, tmp_path, labels=[1])
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: written[name] for name in ("n", "shard", "batch", "seed", "labels", "keep", "gate")} == {
        "n": 20, "shard": 10, "batch": 256, "seed": 0, "labels": [1], "keep": 1.0, "gate": None
    }  # fmt: skip
    for change, problem in (
        ({"n": 0}, "expected n of at least 1, got 0"),
        ({"keep": 2}, "expected keep in"),
        ({"spec": {"shape": [0]}}, "expected a shape of positive sizes"),
        ({"extra": 1}, "expected an option of Manifest, got extra"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(written | change))
        for call in (lambda: read_shards(tmp_path), lambda: sample_shards(noise, 20, tmp_path, labels=[1])):
            with pytest.raises(Damaged, match=problem):
                call()
    (tmp_path / "manifest.json").write_text(json.dumps(written | {"n": 10**15}))
    with pytest.raises(UserError, match=r"expected 100000000000000 shards in .*, got 2; go on with"):
        read_shards(tmp_path)


def test_a_folder_that_holds_something_else(noise, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"expected a new or an empty folder, got .* holds something else"):
        sample_shards(noise, 5, tmp_path)
    with pytest.raises(UserError, match="holds something else"):
        sample_shards(noise, 5, tmp_path / "thesis.tex")
    with pytest.raises(UserError, match=r"expected to write .*, got .*thesis.tex which is no folder"):
        sample_shards(noise, 5, tmp_path / "thesis.tex" / "out")
    with pytest.raises(UserError, match=r"expected the file .*manifest\.json, got nothing there"):
        read_shards(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n": 0}, "expected at least 1 sample, got 0; raise --n"),
        ({"seed": -1}, "expected a seed of 0 or more"),
        ({"temperature": 0}, "expected temperature above 0"),
        ({"top_k": 3}, "expected no top-k, got one: Noise takes temperature"),
        ({"labels": [3]}, "expected labels 0..2, got 3"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(noise, tmp_path, options, problem):
    with pytest.raises(UserError, match=problem):
        sample_shards(noise, **({"n": 5, "out": tmp_path / "out"} | options))
    assert not list(tmp_path.iterdir())


# Damage and kills


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("x.npy")
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 60 + entry.compress_size // 2] ^= 1
    path.write_bytes(data)


def rewritten(**changes):
    def damage(path):
        with np.load(path) as there:
            arrays = dict(there)
        arrays |= {name: change(arrays.get(name)) for name, change in changes.items()}
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})

    return damage


DAMAGES = {
    "truncated": halved,
    "flipped byte": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("samples"),
    "other shape": rewritten(x=lambda x: x.reshape(-1, 1, 2, 8)),
    "fewer": rewritten(x=lambda x: x[:5], labels=lambda labels: labels[:5]),
    "other dtype": rewritten(x=lambda x: x.astype(np.int16)),
    "values out of range": rewritten(x=lambda x: x + 17),
    "labels out of range": rewritten(labels=lambda labels: labels + 3),
    "other labels": rewritten(labels=lambda labels: labels[::-1].copy()),
    "no labels": rewritten(labels=lambda _: None),
    "more": rewritten(extra=lambda _: np.zeros(3)),
    "objects": rewritten(x=lambda x: np.array([None] * len(x))),
    "a bomb": lambda path: np.savez_compressed(path, x=np.zeros(2**22, np.uint8), labels=np.zeros(10, int)),
    "missing": Path.unlink,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_an_error_to_read_and_drawn_anew(noise, tmp_path, small, damage):
    whole = contents(sample_shards(noise, 30, tmp_path, seed=2, labels=[2, 1]).path)
    damage(shard(tmp_path, 1))
    with pytest.raises(UserError) as told:
        read_shards(tmp_path).batch()
    assert re.search(r"expected (10 samples in \S+shard-00001.npz|3 shards in \S+), got", str(told.value))
    assert str(told.value).endswith(
        f"with: ancestral sample RUN -n 30 --labels 2 1 --seed 2 --format shards --out {tmp_path}"
    )
    noise.asked = []
    sample_shards(noise, 30, tmp_path, seed=2, labels=[2, 1])
    assert noise.asked == [10]
    assert contents(tmp_path) == whole


def test_no_flipped_byte_changes_what_is_read(noise, tmp_path, small):
    """What neither of a zip file's sums covers (times, attributes) has no influence."""
    shards = sample_shards(noise, 10, tmp_path)
    data, expected, found = shard(tmp_path).read_bytes(), shards.batch(), 0
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 16
        shard(tmp_path).write_bytes(broken)
        try:
            batch = shards.batch()
        except UserError:
            found += 1
        else:
            assert torch.equal(batch.x, expected.x), place
            assert torch.equal(batch.labels, expected.labels), place
    assert found > len(data) / 2


def test_a_shard_that_may_not_be_read_is_no_damage(noise, tmp_path, small, monkeypatch):
    sample_shards(noise, 10, tmp_path)

    def refuse(path):
        raise UserError(f"expected to read {path}, got: Permission denied", "check who may read it")

    monkeypatch.setattr(sharded_samples, "check_readable", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        sample_shards(noise, 10, tmp_path)


def test_samples_that_are_not_finite_are_not_written(tmp_path):
    class Diverged(Noise):
        def draw(self, n, *_, **__):
            return torch.full((n, 2), float("nan"))

    with pytest.raises(UserError, match="expected finite values, got NaN"):
        sample_shards(Diverged(Noise.Config(), Spec(shape=(2,), levels=None)), 5, tmp_path)
    assert sorted(contents(tmp_path)) == ["manifest.json"]


def test_killed_at_any_write_the_same_call_ends_with_the_same_shards(noise, tmp_path, small, monkeypatch):
    expected = contents(sample_shards(noise, 25, tmp_path / "whole", keep=0.5, gate=Planted()).path)
    number = 1
    while True:
        out = tmp_path / f"out{number}"

        def work(out=out):
            sample_shards(noise, 25, out, keep=0.5, gate=Planted())

        if not killed_at(monkeypatch, number, work):
            break
        for path in out.glob("[!.]*") if out.exists() else ():
            assert path.read_bytes() == expected[path.name], f"killed at write point {number}: {path}"
        work()
        assert contents(out) == expected, f"killed at write point {number}"
        assert not stray(out), f"killed at write point {number}"
        shutil.rmtree(out)
        number += 1
    assert number > 30


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(noise, tmp_path, small):
    dead, alive = (tmp_path / f".{shard(tmp_path).name}.{pid}.tmp" for pid in (dead_process(), os.getppid()))
    (tmp_path / f".manifest.json.{os.getppid()}.tmp").mkdir(), dead.mkdir()
    sample_shards(noise, 10, tmp_path)
    dead.mkdir(), alive.mkdir()
    sample_shards(noise, 10, tmp_path)
    assert (dead.exists(), alive.exists()) == (False, True)


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(saved, n, out):
    words = f"sample {saved} -n {n} --out {out} --format shards --device cpu --seed 4"
    return words.split()


@pytest.fixture(scope="module")
def alone(saved, tmp_path_factory):
    """2,500 samples by one process that nothing disturbed."""
    return contents(sample_shards(saved, 2500, tmp_path_factory.mktemp("alone") / "out", seed=4).path)


def test_killed_for_real_and_gone_on_with(saved, alone, start, stop, tmp_path):
    out = tmp_path / "out"
    program = "from ancestral.cli.main import main; main()"
    process = start(program, *command(saved, 2500, out), said=tmp_path / "output.txt")
    assert stop(process, signal.SIGKILL, lambda: shard(out).exists()) == -signal.SIGKILL
    assert shard(out).read_bytes() == alone[shard(out).name]
    assert not shard(out, 2).exists(), "it was in the middle"
    sample_shards(saved, 2500, out, seed=4)
    assert contents(out) == alone


def test_two_processes_draw_what_one_does(saved, alone, two_processes, tmp_path):
    out, program = tmp_path / "out", tmp_path / "program.py"
    program.write_text("from ancestral.cli.main import main; main()")
    said = two_processes([program, *command(saved, 2500, out)])
    assert said.splitlines()[-1] == str(out), "one of them says where"
    assert said.count(str(out)) == 1
    assert contents(out) == alone


def test_each_process_draws_its_own_shards(noise, tmp_path, small, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    shards = sample_shards(noise, 45, tmp_path)
    assert sorted(contents(tmp_path)) == ["manifest.json", "shard-00001.npz", "shard-00003.npz"]
    with pytest.raises(
        UserError, match=r"expected 5 shards in .*, got 2; go on with: ancestral sample RUN -n 45"
    ):
        read_shards(tmp_path)
    with pytest.raises(
        UserError, match=r"shard-00000.npz, got nothing there; mend it with: ancestral sample"
    ):
        shards.batch()
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match="expected RANK below WORLD_SIZE in the environment, got 2 and 2"):
        sample_shards(noise, 45, tmp_path)
    monkeypatch.setenv("RANK", "0")
    sample_shards(noise, 45, tmp_path)
    monkeypatch.delenv("RANK")
    assert len(read_shards(tmp_path).batch()) == 45


def test_of_several_gpus_a_process_has_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert sharded_samples.own_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert sharded_samples.own_device("cuda") == torch.device("cuda:2")
    assert sharded_samples.own_device("cuda:1") == torch.device("cuda:1")
    assert sharded_samples.own_device("cpu") == torch.device("cpu")


# Rejection


def test_kept_are_the_likeliest_of_each_class_in_order():
    """Against sorting each class by itself."""
    generator = torch.Generator().manual_seed(0)
    for n, classes in ((1, 1), (7, 3), (200, 5)):
        labels = torch.randint(classes, (n,), generator=generator)
        probability = torch.randint(10, (n,), generator=generator) / 10  # with ties
        counts = torch.randint(1 + n // classes, (classes,), generator=generator)
        expected = []
        for c in range(classes):
            own = [i for i in range(n) if labels[i] == c]
            expected += sorted(own, key=lambda i: (-float(probability[i]), i))[: int(counts[c])]
        assert kept(probability, labels, counts).tolist() == sorted(expected)


def test_candidates_are_one_over_keep_of_each_class():
    drawn = candidates(torch.tensor([4, 1, 1, 4, 4]), 0.3)
    assert drawn.bincount().tolist() == [0, 7, 0, 0, 10]
    with pytest.raises(UserError, match=r"expected \S+ candidates to fit into memory, got .*; raise keep"):
        candidates(torch.tensor([0, 1]), 5e-324)


@pytest.mark.parametrize("sizes", [[3] * 40, [120], [1] * 120])
def test_surest_of_parts_are_those_of_the_whole(noise, sizes):
    """However the candidates come, and although few of them are held."""
    labels = torch.arange(120) % 3
    wanted = torch.tensor([2, 0, 0, 1, 2, 0, 1])
    x = noise.sample(120, labels, generator=torch.Generator().manual_seed(0))
    found = surest(Planted(), iter(x.split(sizes)), labels, wanted)
    assert torch.equal(found[:, 0, 0, 0].long(), wanted)
    for c in range(3):
        own = x[labels == c]
        best = own[:, 0, 0, 1].argsort(descending=True, stable=True)[: int((wanted == c).sum())]
        assert torch.equal(found[wanted == c], own[best.sort().values]), "in the order of drawing"


def test_samples_are_rejected_by_class(noise):
    x, labels = sample(noise, 50, [2, 0], keep=0.2, gate=Planted(), seed=3)
    assert labels.tolist() == [2, 0] * 25
    assert torch.equal(x[:, 0, 0, 0].long(), labels)
    # The best fifth of uniform 0..16 is above the 80th percentile, about.
    assert x[:, 0, 0, 1].float().mean() > 14
    assert x[:, 0, 0, 2].float().mean() == pytest.approx(8, abs=3), "and of nothing else"
    again, _ = sample(noise, 50, [2, 0], keep=0.2, gate=Planted(), seed=3)
    assert torch.equal(x, again)
    x, labels = sample(noise, 50, keep=0.5, gate=Planted(), seed=3)
    assert torch.equal(x[:, 0, 0, 0].long(), labels), "drawn at random, but known"


def test_keeping_all_changes_nothing(noise, digits):
    for model in (noise, build(GatedPixelCNN, digits)):
        plain, _ = sample(model, 70, [1, 2], seed=5)
        same, _ = sample(model, 70, [1, 2], seed=5, keep=1, gate=Planted())
        generator = torch.Generator().manual_seed(5)
        labels = torch.tensor([1, 2]).repeat(35)
        parts = [model.sample(len(part), part, generator=generator) for part in labels.split(64)]
        assert torch.equal(plain, torch.cat(parts))
        assert torch.equal(same, plain)


def test_each_shard_is_rejected_for_itself(noise, tmp_path):
    gate = Planted()
    noise.asked = []
    shards = sample_shards(noise, 1500, tmp_path, [1, 0, 1], keep=0.3, gate=gate)
    assert max(noise.asked) == 256
    # 667 + 333 and 333 + 167 examples, each divided by 0.3 and rounded up.
    assert sum(noise.asked) == (2224 + 1110) + (1110 + 557)
    batch = shards.batch()
    assert torch.equal(batch.labels, torch.tensor([1, 0, 1]).repeat(500))
    assert torch.equal(batch.x[:, 0, 0, 0].long(), batch.labels)
    assert int(batch.x[:, 0, 0, 1].min()) >= 11  # of 17 levels the best 5.1 stay, give or take the draws
    more = sample_shards(noise, 2000, tmp_path, [1, 0, 1], keep=0.3, gate=gate).batch()
    assert torch.equal(more.x[:1000], batch.x[:1000])
    other = Planted()
    with torch.no_grad():
        other.weight.add_(1)
    with pytest.raises(UserError, match=r"other options: gate \("):
        sample_shards(noise, 2000, tmp_path, [1, 0, 1], keep=0.3, gate=other)


class Weightless:
    """A gate without an identity."""

    spec, device = SPEC, torch.device("cpu")

    def probabilities(self, x):
        return torch.ones(len(x), 3)


@pytest.mark.parametrize(
    ("keep", "gate", "problem"),
    [
        (0, None, "expected keep in (0, 1], got 0; choose a value in that range"),
        (1.5, None, "expected keep in (0, 1], got 1.5; "),
        (float("nan"), None, "expected keep in (0, 1], got nan; "),
        (0.5, None, "expected a gate with probabilities of classes for keep below 1, got none; give a"),
        (
            0.5,
            object(),
            "expected a gate with probabilities of classes for keep below 1, got a object; give a",
        ),
        (
            0.5,
            Planted(replace(SPEC, classes=4)),
            "expected a gate for the model's 3 classes, got one for 4; ",
        ),
        (
            0.5,
            Planted(replace(SPEC, shape=(1, 2, 8))),
            "of shape (1, 4, 4) with 17 levels, got one for (1, 2",
        ),
        (0.5, Planted(replace(SPEC, levels=16)), "with 17 levels, got one for (1, 4, 4) with 16; use a"),
    ],
)
def test_unfit_rejection_is_told(noise, tmp_path, keep, gate, problem):
    for call in (
        lambda **how: sample(noise, 5, **how),
        lambda **how: sample_shards(noise, 5, tmp_path, **how),
    ):
        with pytest.raises(UserError) as told:
            call(keep=keep, gate=gate)
        assert problem in str(told.value)
        assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_more_unfit_rejection_is_told(noise, tmp_path):
    plain = Noise(Noise.Config(conditional=False), SPEC)
    with pytest.raises(
        UserError, match=r"expected keep 1, got 0.5: this Noise does not draw by class; leave it"
    ):
        sample(plain, 5, keep=0.5, gate=Planted())
    given = Noise(Noise.Config(), SPEC)
    given.spec = replace(SPEC, contexts=(Spec(shape=(2,)),))
    with pytest.raises(UserError, match=r"expected keep 1, got 0.5: this Noise is given contexts"):
        sample(given, 5, keep=0.5, gate=Planted())
    with pytest.raises(UserError, match="expected 1 contexts, got 0"):
        sample_shards(given, 5, tmp_path / "out")
    noise.classes, named = ("cat", "dog", "owl"), Planted()
    named.classes = ("cat", "eel", "owl")
    with pytest.raises(UserError, match="a gate for the model's classes, got one with eel for dog"):
        sample(noise, 5, keep=0.5, gate=named)
    assert len(sample(noise, 5, keep=0.5, gate=Weightless())[0]) == 5
    with pytest.raises(
        UserError, match="expected a gate with weights, by which to know it again, got a Weigh"
    ):
        sample_shards(noise, 5, tmp_path / "out", keep=0.5, gate=Weightless())
    for wrong, got in ((torch.ones(2), r"\(10, 2\)"), (torch.full((3,), float("nan")), "NaN or infinity")):
        gate = Planted()
        gate.probabilities = lambda x, wrong=wrong: wrong.expand(len(x), -1)
        with pytest.raises(UserError, match=rf"expected probabilities \(10, 3\) of the gate, got {got}; use"):
            sample(noise, 5, [0], keep=0.5, gate=gate)


def test_a_gate_is_left_in_its_mode(noise, tmp_path):
    class Classifier(Noise):
        def probabilities(self, x):
            assert not self.training
            return torch.ones(len(x), 3) / 3

    gate = Classifier(Noise.Config(), SPEC).train()
    sample(noise, 5, keep=0.5, gate=gate)
    sample_shards(noise, 5, tmp_path, keep=0.5, gate=gate)
    assert gate.training
