"""Runs side by side: what can be compared is, and what was measured otherwise is refused by name."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from ancestral.cli import main as commands
from ancestral.configuration import from_json, to_json
from ancestral.errors import UserError
from ancestral.figures import Evaluation, Figure, Provenance
from ancestral.report.comparison import Comparison

TAKEN = Provenance(
    features="classifier of digits",
    weights="3fa9",
    accuracy=0.98,
    data="digits",
    fingerprint="9f2c",
    split="test",
    n=180,
    sampling={"temperature": 0.9},
    seeds=(0, 1),
)
NLL = Figure(
    id="nll", name="code length", value=2.868, quantity="NLL", unit="bits/dim", kind="exact", better="lower",
    standard_error=0.012,
)  # fmt: skip
DISTANCE = Figure(
    id="frechet_distance", name="Fréchet distance", value=8.7, quantity="FD", better="lower",
    interval=(8.2, 9.2), floor=(0.02, 0.03), references={"slight noise": 1.1}, provenance=TAKEN,
)  # fmt: skip
RECALL = replace(
    DISTANCE, id="recall", name="recall", value=0.5, quantity="recall", better="higher", interval=None
)
SPEED = Figure(id="speed", name="samples a second", value=3.0, quantity="speed", unit="1/s")


@pytest.fixture
def make(tmp_path):
    """Writes a run and gives its folder."""

    def make(name, *figures, model="vae", fingerprint="9f2c", shape=(1, 8, 8), **more):
        run = tmp_path / name
        run.mkdir(parents=True)
        about = {"model": model, "spec": {"shape": shape, "levels": 17}}
        about["data"] = {"source": "digits", "fingerprint": fingerprint}
        (run / "run.json").write_text(json.dumps(about))
        whole = {"model": "VAE", "data": "digits", "split": "test", "examples": 180, "figures": figures}
        (run / "evaluation.json").write_text(json.dumps(Evaluation(**(whole | more)).to_json()))
        return run

    return make


@pytest.fixture
def call(capsys, monkeypatch):
    """Exit status, output and errors of ``ancestral compare`` through a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*runs):
        status = commands.run(["compare", *map(str, runs)])
        return status, *capsys.readouterr()

    return call


def cells(output):
    """The table: the first cell of each line to the others."""
    return {first: rest for first, *rest in (re.split(r"  +", line) for line in output.splitlines() if line)}


def test_a_row_for_each_shared_figure_and_a_column_for_each_run(make, call):
    a = make("a", NLL, DISTANCE, RECALL, SPEED)
    b = make(
        "b",
        replace(NLL, value=2.5, kind="bound"),
        replace(DISTANCE, value=9.7, interval=(9.2, 10.2)),
        model="vqvae",
    )
    c = make("c", replace(RECALL, value=0.75), replace(SPEED, value=4.0), model="my:Model")
    status, output, errors = call(a, b, c)
    assert (status, errors) == (0, "")
    assert output.startswith("digits, test split, 180 examples\n")
    table = cells(output)
    assert table["figure"] == ["VAE", "VQ-VAE", "my:Model", "unit"]
    assert table["code length"] == ["2.868 ± 0.012", "≤ 2.500 ± 0.012 *", "bits/dim"]
    assert table["Fréchet distance"] == ["8.7 [8.2, 9.2] *", "9.7 [9.2, 10.2]"]
    assert table["recall"] == ["0.5", "0.75 *"]
    assert table["samples a second"] == ["3", "4", "1/s"]  # neither is the better one
    assert "* the best of the row" in output


def test_an_exact_likelihood_stands_beside_the_tightest_bound(make, call):
    exact = make("a", NLL)
    loose = replace(NLL, id="nelbo", name="negative ELBO", kind="bound", value=3.25)
    tight = replace(loose, id="nelbo_importance_weighted", name="importance-weighted, k=16", value=2.75)
    other = replace(loose, quantity="NLL given labels", value=2.0)
    table = cells(call(exact, make("b", loose, tight, other))[1])
    assert table["NLL"] == ["2.868 ± 0.012", "≤ 2.750 ± 0.012 *", "bits/dim"]
    assert "code length" not in table
    assert "NLL given labels" not in table  # of one run only
    loose = replace(loose, unit="nats")
    assert "No two of these runs have a figure" in call(exact, make("c", loose))[1]


def test_figures_of_one_run_alone_are_left_out(make, call):
    output = call(make("a", NLL, SPEED), make("b", NLL))[1]
    assert "code length" in output
    assert "samples a second" not in output
    assert output.count(" *") == 2  # both are as good
    nothing = call(make("c", SPEED), make("d", NLL))[1]
    assert "No two of these runs have a figure in common." in nothing


def test_one_run_is_shown_whole_and_without_stars(make, call):
    run = make("a", NLL, SPEED)
    status, output, _ = call(run, f"{run}/")
    assert (status, "*" in output) == (0, False)
    assert {"code length", "samples a second"} < cells(output).keys()


def test_runs_of_one_name_are_told_apart_by_their_paths(make, call):
    a, b = make("x/run", NLL), make("y/run", NLL)
    assert f"{a}" in (output := call(a, b)[1])
    assert f"{b}" in output


def test_a_value_that_is_no_number_is_not_the_best(make, call):
    table = cells(call(make("a", replace(NLL, value=float("nan"))), make("b", NLL), make("c", NLL))[1])
    assert table["code length"] == ["not a number", "2.868 ± 0.012 *", "2.868 ± 0.012 *", "bits/dim"]


def test_other_sampling_is_compared_and_said(make, call):
    warm = replace(DISTANCE, provenance=replace(TAKEN, sampling={}))
    output = call(make("a", DISTANCE), make("b", warm))[1]
    assert "samples of a were drawn with temperature 0.9\nsamples of b were drawn with nothing set" in output
    assert "drawn" not in call(make("c", DISTANCE), make("d", DISTANCE))[1]


def test_names_are_no_markup(make, call):
    a, b = (make(name, replace(NLL, name="[bold]x[/nothing]")) for name in ("[red]a", "[b]b"))
    status, output, _ = call(a, b)
    assert status == 0
    assert all(name in output for name in ("[red]a", "[b]b", "[bold]x[/nothing]"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features": "Inception"},
            "measures of the same features, got 'classifier of digits' and 'Inception'",
        ),
        ({"weights": "00"}, "measures of the same weights of the features, got '3fa9' and '00'"),
        ({"fingerprint": "00"}, "measures of the same content of the data, got '9f2c' and '00'"),
        ({"split": "train"}, "measures of the same split, got 'test' and 'train'"),
        ({"n": 90}, "measures of the same n, got 180 and 90"),
    ],
)
def test_what_was_measured_otherwise_is_refused_by_name(make, call, change, message):
    other = replace(DISTANCE, provenance=replace(TAKEN, **change))
    status, output, errors = call(make("a", NLL, DISTANCE), make("b", NLL, other))
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"expected {message} for Fréchet distance of a and b; measure both anew" in errors
    assert call(make("c", NLL, DISTANCE), make("d", NLL))[0] == 0  # nothing of it is compared


def test_one_figure_of_two_quantities_is_refused(make, call):
    status, _, errors = call(make("a", NLL), make("b", replace(NLL, unit="nats")))
    assert status == 2
    assert "expected figures of one unit, got bits/dim and nats for code length of a and b" in errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "fashion-mnist"}, "expected runs of one data, got 'digits' in a and 'fashion-mnist' in b"),
        ({"split": "train"}, "expected runs of one split, got 'test' in a and 'train' in b"),
        ({"fingerprint": "00"}, "expected runs of one content of the data, got '9f2c' in a and '00' in b"),
        (
            {"shape": (3, 8, 8)},
            "expected runs of one shape of an example, got (1, 8, 8) in a and (3, 8, 8) in",
        ),
        ({"examples": 7}, "expected runs of one number of examples, got 180 in a and 7 in b"),
    ],
)
def test_runs_on_other_examples_are_refused(make, call, change, message):
    status, output, errors = call(make("a", NLL), make("b", NLL, **change))
    assert (status, output) == (2, "")
    assert message in errors


def test_mistakes_are_one_line(make, call, tmp_path):
    run = make("not evaluated", NLL)
    (run / "evaluation.json").unlink()
    status, output, errors = call(run)
    remedy = f"make it: ancestral evaluate '{run}'"
    assert (status, output) == (2, "")
    assert errors == f"ancestral: expected figures of {run}, got no evaluation.json; {remedy}\n"
    assert f"expected a run directory, got {tmp_path} without run.json; give" in call(tmp_path)[2]
    assert call() == (2, "", "ancestral: expected run directories, got none; give one or more\n")
    (run / "evaluation.json").write_text("{")
    assert re.search("expected JSON in .*evaluation.json", call(run)[2])


def test_comparing_imports_no_torch(make):
    code = """if True:
        import sys
        from ancestral.cli.main import run
        assert run(["compare", *sys.argv[1:]]) == 0
        assert "torch" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code, str(make("a", NLL)), str(make("b", NLL))], check=True)


def test_a_comparison_gives_its_figures(make):
    rows = Comparison.of([make("a", NLL, DISTANCE), make("b", NLL)]).rows
    assert rows == {"nll": {"a": NLL, "b": NLL}}


# Provenance


def test_sampling_seeds_and_accuracy_may_differ():
    TAKEN.check_same(replace(TAKEN, sampling={}, seeds=(7,), accuracy=None, data="elsewhere"))
    DISTANCE.check_comparable(replace(DISTANCE, value=1.0, floor=None, references={}))
    NLL.check_comparable(replace(NLL, kind="bound"))


def test_a_measure_that_does_not_say_how_it_was_taken_cannot_be_compared():
    bare = replace(DISTANCE, provenance=None)
    bare.check_comparable(bare)
    for first, second in ((bare, DISTANCE), (DISTANCE, bare)):
        with pytest.raises(UserError, match="expected measures of the same features, got"):
            first.check_comparable(second)


def test_figures_with_provenance_come_back_from_json(tmp_path):
    assert from_json(Provenance, json.loads(json.dumps(to_json(TAKEN)))) == TAKEN
    evaluation = Evaluation(model="VAE", data="digits", split="test", examples=180, figures=(NLL, DISTANCE))
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation.to_json()))
    assert Evaluation.read(tmp_path / "evaluation.json") == evaluation
