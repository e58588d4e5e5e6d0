"""A model of somebody's own, from outside: what docs/your-own-model.md shows is run here as it stands."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import ancestral
from ancestral import taxonomy
from ancestral.cli import main as commands
from ancestral.data import load_data
from ancestral.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BRIEFLY = "--device cpu --sample-every 0 --training.steps 8 --training.batch-size 16"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the page's reader works in, which is not on Python's path."""
    (tmp_path / "mymodel.py").write_text(BLOCKS[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    yield tmp_path
    sys.modules.pop("mymodel", None)
    taxonomy.rows.cache_clear()


def call(line):
    return commands.run(shlex.split(line))


def test_the_page_as_it_stands(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    exec(BLOCKS[1], {})
    train = ancestral.train
    options = ancestral.TrainingOptions(device="cpu", sample_every=0)
    stages = {"training": {"steps": 150, "batch_size": 64, "warmup": 5}}
    monkeypatch.setattr(ancestral, "train", lambda *a, **k: train(*a, **k, stages=stages, options=options))
    names = {}
    exec(BLOCKS[2], names)
    assert names["images"].shape == (64, 1, 8, 8)
    assert type(names["model"]).__name__ == "Pixelwise"
    x = load_data("digits").train.x.flatten(1).long()
    learned = names["model"].net.weight.detach().softmax(-1)
    often = torch.stack([(x == level).float().mean(0) for level in range(17)], 1)
    assert float((learned - often).abs().max()) < 0.2, "it has learned how often each level occurs"


def test_every_command_takes_it_as_module_and_class(folder, capsys):
    assert call(f"train mymodel:Pixelwise --data digits --out run {BRIEFLY} --model.spread 0.5") == 0
    assert call(f"train mymodel:Pixelwise --data digits --out run {BRIEFLY} --model.spread 0.5") == 0
    assert "the run run is complete" in capsys.readouterr().out
    for line in (
        "sample run --n 4",
        "evaluate run --limit 20",
        "report run",
        "sample run/model --n 4 --out other",
    ):
        assert call(line) == 0, line
    assert "Pixelwise on digits" in capsys.readouterr().out
    assert ancestral.runs.Run.open("run").model_name == "mymodel:Pixelwise"
    assert "Pixelwise" in Path("run/report.html").read_text()
    assert call(f"train mymodel:Pixelwise --data digits --out run {BRIEFLY} --model.spread 0.6") == 2
    assert "--model.spread (0.5 there, 0.6 here)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mymodel:Pixelwis", "expected a class Pixelwis in mymodel, got none; check the name"),
        (
            "mymodl:Pixelwise",
            "expected a module that can be imported, got mymodl; install its package, or give the command",
        ),
        ("mymodel:nn", "expected a subclass of ancestral.Model, got mymodel:nn; check the name"),
        ("pixelwise", "expected the name of a model or module:Class, got 'pixelwise'"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, name, message):
    assert call(f"train {name} --data digits --out run") == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_run_whose_module_is_gone_says_so(folder, capsys):
    assert call(f"train mymodel:Pixelwise --data digits --out run {BRIEFLY}") == 0
    sys.modules.pop("mymodel")
    Path("mymodel.py").unlink()
    capsys.readouterr()
    assert call("sample run") == 2
    assert "expected a module that can be imported, got mymodel" in capsys.readouterr().err


def test_help_of_a_model_of_ones_own(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        call("train mymodel:Pixelwise --help")
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert "--model.spread FLOAT" in output
    assert "Standard deviation of the first logits." in output


def installed(site, name, value):
    """A package that adds an entry point, as pip would leave it."""
    info = site / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[ancestral.models]\n{name} = {value}\n")


def test_a_package_adds_rows_to_the_taxonomy(folder, monkeypatch, capsys):
    site = folder / "site"
    installed(site, "mypackage", "mypackage.rows:PIXELWISE")
    (site / "mypackage").mkdir()
    (site / "mypackage" / "__init__.py").touch()
    (site / "mypackage" / "rows.py").write_text(BLOCKS[-1])
    monkeypatch.syspath_prepend(str(site))
    taxonomy.rows.cache_clear()
    assert call("models") == 0
    output = capsys.readouterr().out
    assert re.search(r"pixelwise +maximum likelihood +exact +A\. Author", output)
    assert call(f"train pixelwise --data digits --out run {BRIEFLY}") == 0
    assert ancestral.runs.Run.open("run").model_name == "pixelwise"
    assert call("sample run --n 4") == 0
    sys.modules.pop("mypackage.rows", None)
    sys.modules.pop("mypackage", None)


@pytest.mark.parametrize("value", ["nothere.rows:ROW", "json:dumps"])
def test_a_package_that_is_broken_breaks_nothing(folder, monkeypatch, capsys, value):
    installed(folder / "site", "broken", value)
    monkeypatch.syspath_prepend(str(folder / "site"))
    taxonomy.rows.cache_clear()
    with pytest.warns(UserWarning, match="left out"):
        assert len(taxonomy.rows()) == len(taxonomy.TAXONOMY)
    assert call("models") == 0


def test_a_data_set_of_ones_own_trains_and_is_asked_for_again(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    from mymodel import Pixelwise

    whole = load_data("digits")
    data = ancestral.Dataset(
        source="mine",
        spec=ancestral.Spec(shape=(1, 8, 8), levels=17),
        train=ancestral.Batch(whole.train.x[:64]),
        validation=ancestral.Batch(whole.validation.x[:20]),
        test=ancestral.Batch(whole.test.x[:20]),
    )
    arguments = {
        "out": "run",
        "stages": {"training": {"steps": 4, "batch_size": 16}},
        "options": ancestral.TrainingOptions(device="cpu", sample_every=0),
    }
    run = ancestral.train(Pixelwise, data=data, **arguments)
    again = ancestral.train(Pixelwise, data=data, **arguments)
    assert again.path == run.path, "the same data: the run is complete"
    assert ancestral.evaluate(run, data)["nll"] > 0
    message = "expected a source of data in run, got a run on a data set of your own; give that"
    with pytest.raises(UserError, match=message):
        ancestral.evaluate(run)
    other = ancestral.Dataset("mine", data.spec, data.test, data.validation, data.test)
    with pytest.raises(UserError, match="the data's content"):
        ancestral.train(Pixelwise, data=other, **arguments)
    with pytest.raises(UserError, match="expected no preparation of a data set that is there already"):
        ancestral.train(Pixelwise, data=data, preparation={}, **arguments)


def test_each_phase_has_flags_of_its_own_and_one_phase_the_short_ones(folder, capsys):
    """`test_phases` lies beside this file, where pytest finds modules."""
    line = "train test_phases:Game --data digits --out game --device cpu --sample-every 0 --training.ema 0.5"
    line += " --training.critic.learning-rate 0.02 --training.generator.betas 0 0.5 --training.steps 3"
    assert call(line) == 0
    stage = ancestral.runs.Run.open("game").manifest["stages"]["training"]
    assert (stage["steps"], stage["ema"]) == (3, 0.5)
    assert stage["phases"]["critic"]["learning_rate"] == 0.02
    assert stage["phases"]["generator"]["betas"] == [0, 0.5]
    capsys.readouterr()
    assert call(line.replace("0.02", "0.03")) == 2
    assert "--training.critic.learning-rate (0.02 there, 0.03 here)" in capsys.readouterr().err
    assert call("train test_phases:Game --training.r1.learning-rate 1 --print-config") == 2
    assert "got --training.r1.learning-rate; did you mean" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("train test_phases:Game --help")
    output = capsys.readouterr().out
    assert {"--training.critic.learning-rate", "--training.generator.learning-rate"} <= set(output.split())
    assert "--training.learning-rate" not in output.split()
    assert "--training.phases" not in output
    with pytest.raises(SystemExit):
        call("train vae --help")
    assert {"--training.learning-rate", "--training.steps"} <= set(capsys.readouterr().out.split())
