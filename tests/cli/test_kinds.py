"""Kinds of a model's parts and of data on the command line: they decide which options there are."""

import json

import pytest

from ancestral.cli import main as commands


@pytest.fixture
def call(capsys):
    def give(line):
        status = commands.run(line.split())
        output, errors = capsys.readouterr()
        return status, output, errors

    return give


@pytest.mark.parametrize("equals", [" ", "="])
@pytest.mark.parametrize("mark", ["-", "_"])
@pytest.mark.parametrize(
    ("field", "kind", "option"),
    [("top_prior", "transformer", "heads"), ("lower_codes", "finite-scalar", "levels")],
)
def test_a_kind_is_taken_however_it_is_written(call, field, kind, option, mark, equals):
    name = field.replace("_", mark)
    value = "4 4" if option == "levels" else "4"
    line = f"train vqvae2 --model.{name}{equals}{kind} --model.{name}.{option} {value} --print-config"
    status, output, errors = call(line)
    assert (status, errors) == (0, "")
    part = json.loads(output)["model"][field]
    assert part["kind"] == kind
    assert part[option] == ([4, 4] if option == "levels" else 4)


def test_a_kind_overrides_that_of_a_file(call, tmp_path):
    _, output, _ = call("train vqvae2 --model.top-prior transformer --print-config")
    file = tmp_path / "options.json"
    file.write_text(output)
    line = f"train vqvae2 --config {file} --print-config"
    assert json.loads(call(line)[1])["model"]["top_prior"]["kind"] == "transformer"
    found = json.loads(call(f"{line} --model.top-prior gated-pixelcnn")[1])["model"]["top_prior"]
    assert found["kind"] == "gated-pixelcnn"


def test_a_kind_that_options_do_not_follow_is_an_error(call):
    line = "train vqvae2 --model.top-prior transformer --model.top_prior pixelsnail --print-config"
    status, output, errors = call(line)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    status, _, errors = call("train vqvae2 --model.top-prior transfomer --print-config")
    assert (status, errors.partition("; ")[2]) == (2, "did you mean transformer?\n")


@pytest.mark.parametrize("source", ["asterisk", "asterisk:en", "gcin-voice", "tones"])
def test_a_source_of_sounds_has_the_options_of_sounds(call, source):
    line = f"train wavenet --data {source} --sound.rate 16000 --sound.trim --print-config"
    status, output, errors = call(line)
    assert (status, errors) == (0, "")
    found = json.loads(output)["sound"]
    assert (found["rate"], found["trim"], found["encoding"], found["levels"]) == (16000, True, "mu-law", 256)
    status, _, errors = call(f"train wavenet --data {source} --images.size 8 8 --print-config")
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("rate 0", "expected rate of at least 1000, got 0"),
        ("rate 192001", "expected rate in [1000, 192000], got 192001"),
        ("levels 1", "expected levels of at least 2, got 1"),
        ("levels 65537", "expected levels in [2, 65536], got 65537"),
        ("length 0", "expected length of at least 1, got 0"),
        ("encoding a-law", "expected --sound.encoding to be one of mu-law, linear, got a-law"),
    ],
)
def test_options_of_sounds_out_of_their_range_are_one_line(call, option, expected):
    status, output, errors = call(f"train wavenet --data tones --sound.{option} --print-config")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert expected in errors
