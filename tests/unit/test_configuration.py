"""Configurations to JSON and back; files that are there whole or not at all."""

import json
import os
import pickle
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import torch
from safetensors import SafetensorError

from ancestral.configuration import (
    Configuration,
    Count,
    Natural,
    NonNegative,
    Positive,
    Range,
    Share,
    differences,
    from_json,
    to_json,
)
from ancestral.errors import UserError
from ancestral.files import read_json, read_tensors, replacing, write_json, write_tensors
from ancestral.recipe import Optimization, Updates
from ancestral.spec import Spec
from ancestral.taxonomy import TAXONOMY, model_class

NAN, INFINITY = float("nan"), float("inf")
NAMES = [row.name for row in TAXONOMY]


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
    width=7, rate=1e-5, bias=False, name="ü", folder=Path("b/c"), sizes=(3,), pair=(0.1, 0.2), limit=2.0,
    loss="normal", inner=Inner(depth=3), other=Inner(kind="slow"),
)  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [Outer(), CHANGED, Optimization(ema=0.99, gradient_clip=None), Spec(shape=(3, 4, 5), levels=None)],
)
def test_round_trip_through_text(value):
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize("name", NAMES)
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
        ({"sizes": [1, "2"]}, "expected model.sizes.1 to be of type int, got '2'"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "gausian"}, "likelihood to be one of mse, .*, got 'gausian'; did you mean gaussian"),
        ({"likelihood": ""}, "expected likelihood to be one of mse, .*, got ''"),
    ],
)
def test_choices_are_checked_by_the_dataclass_too(options, message):
    assert model_class("vqvae").Config(likelihood="mse").likelihood == "mse"
    with pytest.raises(UserError, match=message):
        model_class("vqvae").Config(**options)


def test_differences_are_named_with_both_values():
    a, b = to_json(Outer()), to_json(CHANGED)
    assert differences(a, a) == []
    found = differences(a, b, "model")
    assert "model.width (4 there, 7 here)" in found
    assert "model.inner.depth (2 there, 3 here)" in found
    assert len(found) == 11
    assert differences({"a": 1}, {}) == ["a (1 there, None here)"]
    assert differences({"a": {"b": 1}}, {"c": {}}) == ["a (there, not here)", "c (here, not there)"]


# Ranges


@dataclass(frozen=True, kw_only=True)
class Numbers(Configuration):
    count: Count = 1
    natural: Natural = 0
    positive: Positive = 0.5
    nonnegative: NonNegative = 0.0
    share: Share = 0.5
    probability: Annotated[float | None, Range(above=0, most=1)] = None
    width: Annotated[int, Range(least=2)] | None = None
    sizes: tuple[Annotated[int, Range(least=2)], ...] = (2, 3)
    betas: tuple[Share, Share] = (0.9, 0.99)
    shift: Annotated[float, Range(least=-1, most=1)] = 0.0
    free: float = 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"count": 1, "natural": 0, "positive": 1e-30, "nonnegative": 0.0, "share": 0.0},
        {"count": 10**9, "positive": 1e30, "nonnegative": 1e30, "share": 1 - 1e-12},
        {"probability": 1.0, "width": 2, "sizes": (2, 9), "betas": (0.0, 0.5), "shift": -1.0, "free": NAN},
        {"probability": None, "width": None, "sizes": ()},
    ],
)
def test_values_in_their_ranges(values):
    assert Numbers(**values)
    if values.get("free") is None:
        assert from_json(Numbers, to_json(Numbers(**values))) == Numbers(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "expected count of at least 1, got 0; raise count"),
        ({"natural": -1}, "expected natural of at least 0, got -1; raise natural"),
        ({"positive": 0.0}, r"expected positive above 0, got 0\.0; raise positive"),
        ({"nonnegative": -1e-9}, "expected nonnegative of at least 0, got -1e-09; raise nonnegative"),
        ({"share": 1.0}, r"expected share in \[0, 1\), got 1\.0; choose a value in that range"),
        ({"share": -0.1}, r"expected share in \[0, 1\), got -0\.1"),
        ({"probability": 0.0}, r"expected probability in \(0, 1\], got 0\.0"),
        ({"probability": 1.5}, r"expected probability in \(0, 1\], got 1\.5"),
        ({"width": 1}, "expected width of at least 2, got 1"),
        ({"sizes": (4, 1)}, r"expected sizes of at least 2, got \(4, 1\); raise sizes"),
        ({"betas": (0.9, 1.0)}, r"expected betas in \[0, 1\), got \(0\.9, 1\.0\)"),
        ({"shift": 2.0}, r"expected shift in \[-1, 1\], got 2\.0"),
        ({"positive": NAN}, "expected positive above 0, got nan"),
        ({"positive": INFINITY}, "expected positive above 0, got inf"),
        ({"nonnegative": NAN}, "expected nonnegative of at least 0, got nan"),
        ({"share": NAN}, r"expected share in \[0, 1\), got nan"),
        ({"probability": NAN}, r"expected probability in \(0, 1\], got nan"),
        ({"betas": (NAN, 0.5)}, r"expected betas in \[0, 1\), got \(nan, 0\.5\)"),
    ],
)
def test_values_out_of_their_ranges(values, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Numbers(**values)
    with pytest.raises(UserError, match=message):
        replace(Numbers(), **values)
    with pytest.raises(UserError, match=message):
        from_json(Numbers, to_json(values))
    with pytest.raises(UserError, match=message):
        from_json(Numbers, to_json(values), base=Numbers())


def test_the_first_value_out_of_its_range_is_named():
    with pytest.raises(UserError, match="expected natural"):
        Numbers(share=2.0, natural=-3)


def test_a_subclass_keeps_the_ranges_and_adds_its_own():
    @dataclass(frozen=True, kw_only=True)
    class More(Numbers):
        share: float = 0.5  # declared anew, without a range
        depth: Count = 1

    assert More(share=7.0).share == 7
    for wrong in ({"count": 0}, {"depth": 0}):
        with pytest.raises(UserError, match="of at least 1, got 0"):
            More(**wrong)


# One of several configurations, and mappings


@dataclass(frozen=True, kw_only=True)
class Circle(Configuration):
    kind: ClassVar[str] = "circle"
    radius: Positive = 1.0
    color: str = "red"


@dataclass(frozen=True, kw_only=True)
class Square(Configuration):
    kind: ClassVar[str] = "square"
    side: Positive = 2.0
    color: str = "blue"


@dataclass(frozen=True, kw_only=True)
class Frame(Configuration):
    kind: ClassVar[str] = "frame"
    content: Circle | Square | None = field(default_factory=lambda: Square(color="green"))
    width: Count = 1


@dataclass(frozen=True, kw_only=True)
class Picture(Configuration):
    shape: Circle | Square | Frame = field(default_factory=lambda: Circle(radius=5.0))
    named: Mapping[str, Circle] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)


NESTED = Picture(
    shape=Frame(content=Circle(color="black")), named={"a": Circle(radius=3.0)}, numbers={"x": 1, "y": 2}
)


@pytest.mark.parametrize(
    "value", [Picture(), NESTED, Picture(shape=Frame(content=None)), Picture(shape=Square())]
)
def test_a_configuration_among_several_says_its_kind(value):
    data = json.loads(json.dumps(to_json(value)))
    assert data["shape"]["kind"] == value.shape.kind
    assert "kind" not in data
    assert from_json(Picture, data) == value
    # Each class is read by its kind even where its fields would fit another one.
    assert from_json(Picture, {"shape": {"kind": "square", "color": "x"}}).shape == Square(color="x")


def test_what_is_left_out_comes_from_the_choice_that_is_there():
    changed = from_json(Picture, {"shape": {"width": 3}}, base=NESTED)
    assert changed == replace(NESTED, shape=Frame(content=Circle(color="black"), width=3))
    inner = from_json(Picture, {"shape": {"content": {"radius": 9.0}}}, base=NESTED)
    assert inner.shape.content == Circle(radius=9.0, color="black")
    # The same kind goes on from what is there; another begins at its own defaults.
    same = from_json(Picture, {"shape": {"kind": "frame", "width": 4}}, base=NESTED)
    assert same.shape == Frame(content=Circle(color="black"), width=4)
    assert from_json(Picture, {"shape": {"kind": "circle", "color": "x"}}, base=NESTED).shape == Circle(
        color="x"
    )
    assert from_json(Picture, {"shape": {"side": 4.0}}, base=NESTED).shape == Square(side=4.0)
    # Without a base, the default of the field is what is there.
    assert from_json(Picture, {"shape": {"color": "x"}}).shape == Circle(radius=5.0, color="x")
    assert from_json(Frame, {"content": {"side": 7.0}}).content == Square(side=7.0, color="green")


def test_a_mapping_goes_on_from_its_base():
    assert from_json(Picture, {"named": {"a": {"color": "x"}}}, base=NESTED).named == {
        "a": Circle(radius=3.0, color="x")
    }
    assert from_json(Picture, {"named": {"b": {"color": "x"}}}, base=NESTED).named == {
        "a": Circle(radius=3.0),
        "b": Circle(color="x"),
    }
    assert from_json(Picture, {"numbers": {"y": 7, "z": 8}}, base=NESTED).numbers == {"x": 1, "y": 7, "z": 8}
    assert from_json(Picture, {"numbers": {"z": 8}}).numbers == {"z": 8}
    assert NESTED.numbers == {"x": 1, "y": 2}, "the base has changed"
    phases = {"critic": Updates(betas=(0.5, 0.9)), "generator": Updates(learning_rate=3e-4)}
    base = Optimization(steps=5, phases=phases)
    changed = from_json(Optimization, {"phases": {"critic": {"learning_rate": 1}}}, base=base)
    assert changed.phases == phases | {"critic": Updates(betas=(0.5, 0.9), learning_rate=1.0)}
    assert from_json(Optimization, json.loads(json.dumps(to_json(changed)))) == changed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"shape": {"kind": "sqare"}},
            "expected picture.shape.kind to be one of circle, square, frame, got 'sqare'; did you mean sq",
        ),
        ({"shape": {"kind": "zzzzzz"}}, "got 'zzzzzz'; choose from circle, frame, square"),
        (
            {"shape": {"kind": None}},
            "expected picture.shape.kind to be one of circle, square, frame, got None",
        ),
        (
            {"shape": {"kind": "square", "sid": 1.0}},
            "expected an option of picture.shape, got picture.shape.sid; did you mean side",
        ),
        ({"shape": {"kind": "square", "radius": 1.0}}, "got picture.shape.radius; choose from color, side"),
        ({"shape": {"radus": 1.0}}, "got picture.shape.radus; did you mean radius"),
        (
            {"shape": {"kind": "frame", "content": {"kind": "frame"}}},
            "expected picture.shape.content.kind to be one of circle, square, got 'frame'",
        ),
        ({"shape": 3}, "expected options of picture.shape, got 3"),
        ({"shape": None}, "expected options of picture.shape, got None"),
        ({"shape": {"kind": "square", "side": -1.0}}, r"expected picture.shape.side above 0, got -1\.0"),
        ({"kind": "circle"}, "expected picture.kind not to be said, got 'circle'"),
        ({"named": {"a": {"kind": "square"}}}, "expected picture.named.a.kind circle, got 'square'"),
        ({"named": {"a": {"colr": "x"}}}, "got picture.named.a.colr; did you mean color"),
        ({"named": [1]}, r"expected picture.named to be an object with names and values, got \[1\]"),
        ({"numbers": {"x": 1.5}}, r"expected picture.numbers.x to be of type int, got 1\.5"),
    ],
)
def test_mistakes_in_choices_and_mappings_are_named_in_full(data, message):
    with pytest.raises(UserError, match=message):
        from_json(Picture, data, where="picture")


def unions(cls):
    """The fields of a dataclass that hold one of several configurations, with these."""
    for name, hint in typing.get_type_hints(cls).items():
        kinds = [c for c in typing.get_args(hint) if isinstance(c, type) and issubclass(c, Configuration)]
        if typing.get_origin(hint) is not ClassVar and len(kinds) > 1:
            yield name, kinds


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_of_every_model_survives_json(name):
    cls = model_class(name)
    found = dict(unions(cls.Config))
    assert {key: {type(c) for c in choices} for key, choices in cls.choices.items()} == {
        key: {*kinds} for key, kinds in found.items()
    }
    for key, choices in cls.choices.items():
        assert len({choice.kind for choice in choices}) == len(choices)
        assert all(choice.kind for choice in choices)
        for choice in choices:
            for base in (cls.Config.tiny(), *(recipe.model for recipe in cls.recipes.values())):
                config = replace(base, **{key: choice})
                data = json.loads(json.dumps(to_json(config)))
                assert data[key]["kind"] == choice.kind
                assert from_json(cls.Config, data) == config
                assert from_json(cls.Config, {key: data[key]}, base=base) == config
    assert from_json(cls.Config, json.loads(json.dumps(to_json(cls.Config())))) == cls.Config()


# Files


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
        assert tmp_path in temporary.parents, "on another file system, the replacement would not be atomic"
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
    message = r"expected room to write .*/a, got a full disk; free some space"
    with pytest.raises(UserError, match=message), replacing(path) as temporary:  # noqa: PT012
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
    message = "expected to write a file .*/a, got a folder of that name; move it away or choose another --out"
    with pytest.raises(UserError, match=message):
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
    of_that_name = r"expected the file .*, got something else of that name"
    other = r"expected safetensors in .*, got a file that is torn or of another kind"
    with pytest.raises(UserError, match=of_that_name if kind == "folder" else other):
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
