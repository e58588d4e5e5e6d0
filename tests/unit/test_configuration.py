"""Configurations to JSON and back; files that are there whole or not at all."""

import json
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import SafetensorError

from ancestral.configuration import differences, from_json, to_json
from ancestral.errors import UserError
from ancestral.files import read_json, read_tensors, replacing, write_json, write_tensors
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.taxonomy import TAXONOMY, model_class

BUILT = [row.name for row in TAXONOMY if row.path]


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 2
    kind: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True, kw_only=True)
class Outer:
    width: int = 4
    rate: float = 0.5
    bias: bool = True
    name: str = "x"
    folder: Path = Path("a")
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.9, 0.99)
    limit: float | None = None
    loss: Literal["mse"] | Literal["logistic", "normal"] = "mse"
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None


CHANGED = Outer(
    width=7, rate=1e-5, bias=False, name="ü", folder=Path("b/c"), sizes=(3,), pair=(0.1, 0.2), limit=2.0, loss="normal",
    inner=Inner(depth=3), other=Inner(kind="slow"),
)  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [Outer(), CHANGED, Optimization(ema=0.99, gradient_clip=None), Spec(shape=(3, 4, 5), levels=None)],
)
def test_round_trip_through_text(value):
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize("name", BUILT)
def test_every_recipe_survives_json(name):
    cls = model_class(name)
    for recipe in cls.recipes.values():
        assert from_json(cls.Config, json.loads(json.dumps(to_json(recipe.model)))) == recipe.model
        for stage in recipe.stages.values():
            assert from_json(Optimization, json.loads(json.dumps(to_json(stage)))) == stage


def test_what_is_left_out_comes_from_the_base_at_every_depth():
    assert from_json(Outer, {}, base=CHANGED) == CHANGED
    assert from_json(Outer, {}) == Outer()
    ours = from_json(Outer, {"inner": {"kind": "slow"}, "other": {"depth": 9}, "limit": None}, base=CHANGED)
    assert ours.inner == Inner(depth=3, kind="slow")
    assert ours.other == Inner(depth=9, kind="slow")
    assert ours.limit is None
    assert ours.width == 7
    assert from_json(Outer, {"other": None}, base=CHANGED).other is None
    assert from_json(Outer, {"other": {"depth": 1}}).other == Inner(depth=1)


def test_whole_numbers_are_floats_where_floats_are_wanted():
    value = from_json(Outer, {"rate": 1, "pair": [1, 0], "limit": 3})
    assert value == Outer(rate=1.0, pair=(1.0, 0.0), limit=3.0)
    assert type(value.rate) is type(value.pair[0]) is type(value.limit) is float


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"widht": 3}, "expected an option of model, got model.widht; did you mean width"),
        (
            {"inner": {"dept": 3}},
            "expected an option of model.inner, got model.inner.dept; did you mean depth",
        ),
        ({"other": {"knd": "slow"}}, "got model.other.knd; did you mean kind"),
        ({"zzzzzz": 3}, "got model.zzzzzz; choose from bias, folder, inner"),
        ({"width": 3.5}, "expected model.width to be of type int, got 3.5"),
        ({"width": True}, "expected model.width to be of type int, got True"),
        ({"width": "3"}, "expected model.width to be of type int, got '3'"),
        ({"width": None}, "expected model.width to be of type int, got None"),
        ({"rate": True}, "expected model.rate to be of type float, got True"),
        ({"bias": 1}, "expected model.bias to be of type bool, got 1"),
        (
            {"inner": {"kind": "slwo"}},
            "expected model.inner.kind to be one of fast, slow, got 'slwo'; did you mean slow",
        ),
        (
            {"loss": "msee"},
            "expected model.loss to be one of mse, logistic, normal, got 'msee'; did you mean mse",
        ),
        ({"loss": "logistics"}, "did you mean logistic"),
        ({"sizes": 3}, "expected model.sizes to be a list, got 3"),
        ({"sizes": [1, "2"]}, "expected model.sizes to be of type int, got '2'"),
        ({"pair": [1.0]}, "expected model.pair to have 2 values, got 1"),
        ({"limit": "none"}, "expected model.limit to be of type float, got 'none'"),
        ({"inner": 3}, "expected options of model.inner, got 3"),
        ([1], r"expected options of model, got \[1\]"),
    ],
)
def test_mistakes_are_named_in_full(data, message):
    with pytest.raises(UserError, match=message):
        from_json(Outer, data, where="model")


def test_what_must_be_given_is_asked_for():
    with pytest.raises(UserError, match=r"expected spec\.shape, got none"):
        from_json(Spec, {"levels": 4}, where="spec")


def test_values_are_checked_by_the_dataclass_too():
    with pytest.raises(UserError, match="expected steps of at least 1, got 0"):
        from_json(Optimization, {"steps": 0})


def test_differences_are_named_with_both_values():
    a, b = to_json(Outer()), to_json(CHANGED)
    assert differences(a, a) == []
    found = differences(a, b, "model")
    assert "model.width (4 there, 7 here)" in found
    assert "model.inner.depth (2 there, 3 here)" in found
    assert len(found) == 11
    assert differences({"a": 1}, {}) == ["a (1 there, None here)"]


# --- files --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(5, "Input/output error")]
)
def test_an_exception_leaves_the_old_file_whole(tmp_path, error):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(type(error)), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_exception_leaves_the_old_folder_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012
        temporary.mkdir()
        (temporary / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["old"]
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("2")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with replacing(path) as temporary:
        temporary.write_text("2")
        assert read_json(path) == 1
        assert temporary.parent == tmp_path, "on another file system, the replacement would not be atomic"
    assert read_json(path) == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        SafetensorError("Error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_to_be_full(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")
    with (
        pytest.raises(UserError, match=r"expected room to write .*/a, got a full disk; free some space"),
        replacing(path) as temporary,
    ):  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for blocking in ("file", "dangling"):
        for inner in ("a.json", "deep/er/a.json"):
            with pytest.raises(
                UserError, match=rf"a\.json, got [^ ]*/{blocking} which is no folder; choose another --out$"
            ):
                write_json(tmp_path / blocking / inner, 1)
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_is_not_removed_for_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis").write_text("years of work")
    with pytest.raises(
        UserError,
        match=r"expected to write a file .*/a, got a folder of that name; move it away or choose another --out",
    ):
        write_json(tmp_path / "a", 1)
    assert (tmp_path / "a" / "thesis").exists()
    with (
        pytest.raises(UserError, match=r"expected to write a folder .*/thesis, got a file of that name"),
        replacing(tmp_path / "a" / "thesis") as temporary,
    ):
        temporary.mkdir()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["thesis"]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "garbage", "empty", "truncated", "torn", "folder"])
def test_what_is_no_safetensors_is_an_error_and_never_unpickled(tmp_path, kind):
    path, sprung = tmp_path / "model.safetensors", tmp_path / "sprung"
    tensors = {"a": torch.arange(1000.0), "b": torch.ones(3, dtype=torch.int64)}
    write_tensors(path, tensors)
    whole = path.read_bytes()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    elif kind == "torch.save":
        torch.save({"a": Trap(sprung)}, path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "garbage": os.urandom(0) + b"\x07" * 999,
                "empty": b"",
                "truncated": whole[:20],
                "torn": whole[:-1],
            }[kind]
        )
    with pytest.raises(
        UserError, match=r"expected safetensors in .*, got a file that is torn or of another kind"
    ):
        read_tensors(path)
    assert not sprung.exists()


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))).close()
    assert (tmp_path / "sprung").exists()


def test_tensors_survive(tmp_path):
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.rand(3).bfloat16(),
        "flag": torch.tensor(True),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_tensors(tmp_path / "deep" / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "deep" / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "got nothing there"), (b"{", "expected JSON in"), (b"\xff\xfe\x00", "expected JSON in")],
)
def test_what_is_no_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(path)
    with pytest.raises(UserError, match="expected the file"):
        read_tensors(tmp_path / "none.safetensors")


def test_one_of_several_dataclasses_is_found_by_its_fields():
    from ancestral.models.autoregressive.transformer import Transformer
    from ancestral.models.latent.vqvae import VQVAE

    config = VQVAE.Config(prior=Transformer.Config(heads=2, layers=3))
    assert from_json(VQVAE.Config, to_json(config)) == config
    # What is left out comes from what is there now, and a field of another kind changes the kind.
    assert from_json(VQVAE.Config, {"prior": {"layers": 5}}, base=config).prior == Transformer.Config(
        heads=2, layers=5
    )
    assert from_json(VQVAE.Config, {"prior": {"dilations": [1, 2]}}, base=config).prior.dilations == (1, 2)
    with pytest.raises(UserError, match=r"expected an option of prior, got prior.haeds; did you mean heads"):
        from_json(VQVAE.Config, {"prior": {"haeds": 5}}, base=config)
