"""Files that others may have written, and numbers that no memory holds: what has come in can be trusted."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ancestral.configuration import Configuration, Count, Range, from_json, to_json
from ancestral.errors import UserError
from ancestral.evaluation import code_files, detokenize, read_codes, sample, write_codes
from ancestral.figures import Evaluation
from ancestral.files import Damaged, read_array, read_json, replacing
from ancestral.model import Model
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.latent.vae import VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.records import read_record
from ancestral.report import write_report
from ancestral.report.metrics import by_stage, read_lines
from ancestral.spec import Spec
from ancestral.taxonomy import TAXONOMY, model_class

SPEC = Spec(shape=(1, 4, 4), levels=4, classes=3)


@dataclass(frozen=True, kw_only=True)
class Nested(Configuration):
    sizes: Mapping[str, Count] = field(default_factory=dict)
    grid: tuple[tuple[Count, ...], ...] = ()
    named: tuple[Annotated[float, Range(above=0)], str] = (1.0, "x")
    from_: int = 0


@dataclass(frozen=True, kw_only=True)
class Outer(Configuration):
    inner: Nested = field(default_factory=Nested)


@dataclass(frozen=True, kw_only=True)
class Open(Configuration):
    open = True
    size: Count = 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": {"a": 1, "b": 0}}, r"expected inner.sizes of at least 1, got {'a': 1, 'b': 0}"),
        ({"sizes": {"a": "1"}}, "expected inner.sizes.a to be of type int, got '1'"),
        ({"grid": [[1, 2], [3, 0]]}, r"expected inner.grid of at least 1, got \(\(1, 2\), \(3, 0\)\)"),
        ({"grid": [[1, 2], 3]}, "expected inner.grid.1 to be a list, got 3"),
        ({"named": [0.0, "y"]}, r"expected inner.named above 0, got \(0\.0, 'y'\)"),
        ({"sizes": {"a": 2**70}}, r"expected inner.sizes below 2\^63, got"),
        ({"sizes": [1] * 1000}, r"expected inner.sizes to be an object .*, got \[1, 1, 1[^]]{0,80}…"),
    ],
)
def test_ranges_go_into_what_a_field_holds_and_messages_name_the_whole_way(values, message):
    with pytest.raises(UserError, match=message):
        from_json(Outer, {"inner": values})


def test_values_inside_their_ranges_are_taken():
    values = {"sizes": {"a": 1}, "grid": [[1, 2], [3]], "named": [2, "y"], "from": 5}
    nested = from_json(Nested, values)
    assert nested == Nested(sizes={"a": 1}, grid=((1, 2), (3,)), named=(2.0, "y"), from_=5)
    assert from_json(Nested, to_json(nested)) == nested


@pytest.mark.parametrize(("number", "read"), [(10**400, float("inf")), (-(10**400), -float("inf")), (2, 2.0)])
def test_an_integer_that_no_float_holds_is_infinite(number, read):
    @dataclass(frozen=True)
    class Real:
        x: float

    assert from_json(Real, {"x": number}).x == read


def test_a_file_of_a_later_version_may_say_more(tmp_path):
    assert from_json(Open, {"size": 3, "color": "red"}) == Open(size=3)
    (tmp_path / "open.json").write_text('{"size": 0}')
    with pytest.raises(Damaged, match=r"expected size of at least 1, got 0 in .*open.json; restore"):
        read_record(Open, tmp_path / "open.json")


@pytest.mark.parametrize("depth", [65, 900, 100_000])
def test_json_that_is_too_deep_is_refused(tmp_path, depth):
    path = tmp_path / "deep.json"
    path.write_text("[" * 64 + "]" * 64)
    read_json(path)
    path.write_text("[" * depth + "]" * depth)
    with pytest.raises(Damaged, match=r"expected JSON in .*deep.json, got"):
        read_json(path)


# Models


@pytest.fixture
def saved(tmp_path):
    """A folder with a saved model, and a function that changes its configuration."""
    GatedPixelCNN(GatedPixelCNN.Config.tiny(), SPEC).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"

    def change(section=None, **values):
        content = json.loads(file.read_text()) | {"sha256": None}
        (content if section is None else content[section]).update(values)
        file.write_text(json.dumps(content))
        return tmp_path / "model"

    return change


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("config", {"width": 10**12}, r"expected config.width in \[1, 1048576\], got 1000000000000"),
        ("config", {"width": 2**20}, "expected this GatedPixelCNN to fit into memory, got .* GiB"),
        ("config", {"width": 2**13}, "expected a GatedPixelCNN of the size of its weights, got one of"),
        ("config", {"layers": 10**12}, r"expected config.layers in \[1, 1000\], got 1000000000000"),
        ("config", {"kernel": 2**70}, r"expected an odd kernel of at least 3, got 1180591620717411303424"),
        (
            "spec",
            {"classes": 10**9},
            "expected a GatedPixelCNN of the size of its weights, got one of 4,000,",
        ),
        ("spec", {"classes": 10**12}, r"expected classes of at most 2\^31, got 1000000000000 in"),
        ("spec", {"levels": 10**12}, r"expected levels of at most 2\^31, got 1000000000000 in"),
        ("spec", {"shape": [1, 10**6, 10**6]}, r"expected values of at most 2\^31, got 1000000000000 in"),
        (None, {"trained": "all"}, "expected trained to be a list, got 'all' in"),
        (None, {"trained": [3]}, "expected trained.0 to be of type str, got 3 in"),
        (None, {"class": ["VAE"]}, r"expected class to be of type str, got \['VAE'\] in"),
    ],
)
def test_sizes_that_no_memory_holds_are_refused_at_once(saved, section, values, message):
    started = time.perf_counter()
    with pytest.raises(UserError, match=message):
        GatedPixelCNN.from_pretrained(saved(section, **values))
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", [row.name for row in TAXONOMY])
def test_the_sizes_of_every_model_are_counted_before_they_are_allocated(name):
    cls = model_class(name)
    spec = Spec(shape=(1, 64), levels=16) if name in ("wavenet", "vqvae-sound") else SPEC
    config = cls.Config.tiny()
    torch.manual_seed(0)
    expected = cls(config, spec).state_dict()
    torch.manual_seed(0)
    got = cls.fitting(config, spec).state_dict()
    assert all(torch.equal(expected[key], got[key]) for key in expected), "counting draws nothing"
    widest = {f: 2**20 for f in ("width", "hidden", "critic_width") if hasattr(config, f)}
    widest |= {"architecture": {"hidden": 2**20}, "latents": 2**20} if name == "vae" else {}
    widest |= {f: 2**20 for f in ("channels", "most_channels") if hasattr(config, f)}
    widest |= {"architecture": {"width": 2**20, "scales": 2}} if name in ("cgan", "wgan") else {}
    # Two layers, for a square of the width.
    widest |= {"layers": 2} if name in ("nice", "maf") else {"scales": 2} if name == "dcgan" else {}
    with pytest.raises(UserError, match=f"expected this {cls.__name__} to fit into memory|divide"):
        cls.fitting(from_json(cls.Config, widest, base=config), spec)


def test_weights_of_another_type_are_named(saved):
    folder = saved()
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(key for key, value in weights.items() if value.is_floating_point())
    save_file(weights | {name: weights[name].view(torch.int32)}, file)
    with pytest.raises(UserError, match=rf"{name} is \(.*\) of int32, not \(.*\); use the configuration"):
        GatedPixelCNN.from_pretrained(folder)
    save_file(weights | {name: weights[name].double()}, file)
    assert torch.equal(GatedPixelCNN.from_pretrained(folder).state_dict()[name], weights[name])


def test_more_samples_than_the_memory_holds_are_refused_at_once():
    model = VAE(VAE.Config.tiny(), SPEC).eval()
    for draw in (lambda: sample(model, 10**12), lambda: sample(model, 2**70), lambda: model.sample(10**12)):
        with pytest.raises(UserError, match=r"expected \d+ samples to fit into memory, got .* GiB"):
            draw()
    with pytest.raises(UserError, match="expected at most 1,000,000 importance samples, got 1000000000000"):
        model.check_importance_samples(10**12)


def test_labels_beyond_64_bits_are_labels_out_of_range():
    model = GatedPixelCNN(GatedPixelCNN.Config.tiny(), SPEC).eval()
    with pytest.raises(UserError, match=r"expected labels 0\.\.2, got 1180591620717411303424"):
        sample(model, 2, [2**70])


# Codes


def header(descr, shape):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n" + bytes(256)


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("'<i8'", "(1000000000000, 1, 4, 4)"),
        ("'<i8'", "(2000000000, 2000000000, 4, 4)"),
        ("'<i8'", f"({2**70}, 1)"),
        ("'<i8'", "(-1, 1, 4, 4)"),
        ("'<i8'", "(True, 1, 4, 4)"),
        ("'<i8'", "(" * 3000),
        ("'<i8'", "-" * 8000 + "1"),
        ("'|O'", "(1, 1, 4, 4)"),
        ("'<m8'", "(1, 1, 4, 4)"),
        ("'<f4'", "(1, 1, 4, 4)"),
        ("'<U4'", "(1, 1, 4, 4)"),
        ("3", "(1, 1, 4, 4)"),
    ],
)
def test_a_header_of_codes_that_promises_what_is_not_there(tmp_path, descr, shape):
    path = tmp_path / "codes.npy"
    path.write_bytes(header(descr, shape))
    with pytest.raises(UserError, match=r"expected an array .*in .*codes.npy, got"):
        read_codes(path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_pipe_in_place_of_codes_is_not_waited_for(tmp_path, suffix):
    path = tmp_path / f"codes{suffix}"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"expected the file .*codes.*, got something else of that name"):
        read_codes(path)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.bool])
def test_codes_of_types_whose_extremes_torch_does_not_tell(tmp_path, dtype):
    model = VQVAE(VQVAE.Config.tiny(), SPEC).eval()
    save_file({"level0": torch.ones(2, 1, 2, 2).to(dtype)}, tmp_path / "codes.safetensors")
    expected = model.detokenize((torch.ones(2, 1, 2, 2, dtype=torch.int64),))
    assert torch.equal(detokenize(model, read_codes(tmp_path / "codes.safetensors")), expected)


def test_codes_are_written_as_numpy_writes_them(tmp_path):
    codes = torch.arange(24, dtype=torch.int16).reshape(2, 1, 3, 4)
    write_codes(tmp_path / "ours.npy", (codes.transpose(2, 3),))
    np.save(tmp_path / "theirs.npy", np.ascontiguousarray(codes.transpose(2, 3).numpy()))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert np.array_equal(read_array(tmp_path / "ours.npy"), codes.transpose(2, 3).numpy())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without a disk that is always full")
def test_codes_on_a_full_disk_are_a_user_error(tmp_path, monkeypatch):
    @contextmanager
    def full(path):
        with replacing(path) as temporary:
            temporary.symlink_to("/dev/full")
            yield temporary

    monkeypatch.setattr(code_files, "replacing", full)
    with pytest.raises(
        UserError, match=r"expected room to write .*codes.npy, got a full disk; free some space"
    ):
        write_codes(tmp_path / "codes.npy", (torch.zeros(1000, 1, 4, 4, dtype=torch.int64),))


# Reports

FIGURE = {"id": "nll", "name": "NLL", "value": 1.0, "quantity": "NLL", "unit": "bits/dim"}
BOOK = {"size": 2, "used": 1, "perplexity": 1.0, "usage": [3, 0]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", [], r"expected options of Manifest, got \[\] in .*run.json"),
        ("run.json", {"spec": {"shape": 3}}, "expected spec.shape to be a list, got 3 in .*run.json"),
        ("run.json", {"spec": {"levels": "many"}}, "expected spec.levels to be of type int, got 'many' in"),
        ("run.json", {"spec": None}, "expected options of spec, got None in"),
        ("run.json", {"stages": {"prior": {"steps": 2.5}}}, "expected stages.prior.steps to be of type int"),
        ("run.json", {"stages": {"prior": []}}, r"expected options of stages.prior, got \[\] in"),
        ("run.json", {"data": {"sizes": {"train": "all"}}}, "expected data.sizes.train to be of type int"),
        ("run.json", {"data": {"classes": 10}}, "expected data.classes to be a list, got 10"),
        ("run.json", {"parameters": {"prior": float("nan")}}, "expected parameters.prior to be of type int"),
        ("run.json", {"seed": -1}, "expected seed of at least 0, got -1"),
        ("evaluation.json", [], r"expected options of Evaluation, got \[\] in .*evaluation.json"),
        ("evaluation.json", {"figures": [FIGURE | {"value": "x"}]}, "expected figures.0.value to be of type"),
        ("evaluation.json", {"figures": [{}]}, "expected figures.0.id, got none in"),
        (
            "evaluation.json",
            {"figures": [FIGURE | {"kind": "guess"}]},
            "expected figures.0.kind to be one of",
        ),
        ("evaluation.json", {"examples": 10**400}, r"expected examples below 2\^63, got 1000"),
        ("evaluation.json", {"seconds": float("inf")}, "expected seconds of at least 0, got inf"),
        (
            "evaluation.json",
            {"codebooks": [BOOK | {"size": 10**12}]},
            "the use of each of 1000000000000 codes",
        ),
        (
            "evaluation.json",
            {"codebooks": [BOOK | {"usage": [10**400, 0]}]},
            r"expected codebooks.0.usage below 2",
        ),
    ],
)
def test_a_report_of_a_foreign_file_is_one_line_that_names_the_value(tmp_path, name, content, message):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        write_report(tmp_path)


def test_a_report_of_odd_values_within_their_types_is_written(tmp_path):
    run = {"command": "half a character: \ud800", "config": {"a": 10**400, "b": {"c": [1e308, float("nan")]}}}
    figures = [FIGURE | {"value": value} for value in (float("nan"), 10**400, 1e308, 5e-324)]
    (tmp_path / "run.json").write_text(json.dumps(run | {"later": {"version": 3}}))
    (tmp_path / "evaluation.json").write_text(json.dumps({"figures": figures, "codebooks": [BOOK]}))
    assert "not a number" in write_report(tmp_path).read_text()
    assert Evaluation.read(tmp_path / "evaluation.json").figures[1].value == float("inf")


def test_lines_that_are_no_entries_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"stage": "a", "step": 1, "loss": 2.0}',
        '{"stage": "a", "step": 2, "loss": ' + "9" * 5000 + "}",
        '{"stage": "a", "step": 3, "loss": 1e308}',
        "[" * 5000,
        "1" * 5000,
        '{"stage": "a", "step": ' + "9" * 5000 + ', "loss": 1}',
        '{"stage": "a", "step": 1.5, "loss": 1}',
        '{"stage": "a", "step": -1, "loss": 1}',
        '{"stage": "a", "step": true, "loss": 1}',
        '{"stage": ["a"], "step": 4, "loss": 1}',
        '{"stage": "a", "step": 4, "split": ["train"], "loss": 1}',
    ]
    path.write_text("\n".join(lines))
    (term,) = by_stage(read_lines(path))["a"]
    assert term.splits == {"train": {1: 2.0, 2: float("inf"), 3: float("inf")}}
    (tmp_path / "run.json").write_text("{}")
    assert "2 not finite" in write_report(tmp_path).read_text()


def test_a_model_of_ones_own_declares_what_its_loops_take():
    class Stack(Model):
        @dataclass(frozen=True, kw_only=True)
        class Config(Model.Config):
            width: Count = 8

        def __init__(self, config, spec):
            super().__init__(config, spec)
            self.layer = torch.nn.Linear(config.width, config.width)

        def loss(self, batch, phase, progress): ...

        def draw(self, n, labels, contexts, options, *, generator, progress): ...

    assert Stack.fitting(Stack.Config(), SPEC).layer.weight.shape == (8, 8)
    with pytest.raises(UserError, match="expected this Stack to fit into memory"):
        Stack.fitting(Stack.Config(width=10**8), SPEC)
