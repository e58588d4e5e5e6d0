"""Kinds of a model's parts on the command line: they decide which options there are."""

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
