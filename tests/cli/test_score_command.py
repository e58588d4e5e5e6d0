"""``ancestral score``: how likely each example is."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import ks_2samp

import ancestral
from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.evaluation import score
from ancestral.models.flow.maf import MAF
from ancestral.models.latent.vae import VAE
from ancestral.recipe import Optimization
from ancestral.training import TrainingOptions

QUICK = TrainingOptions(device="cpu", evaluate_every=0, sample_every=0, checkpoint_every=0)
SHORT = {"training": Optimization(steps=20, batch_size=64, warmup=0)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A flow of the rows of a table, and a VAE of digits."""
    path = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) @ np.array([[3.0, 1, 0], [0, 1, 0], [0, 0, 0.1]]) + [5, 0, 0]
    np.savetxt(path / "rows.csv", rows, delimiter=",", header="a,b,c", comments="")
    plain = {"stages": SHORT, "options": QUICK}
    maf = {"data": f"table:{path}/rows.csv", "out": path / "maf", "config": MAF.Config.tiny()}
    ancestral.train("maf", **maf, **plain)
    ancestral.train("vae", data="digits", out=path / "vae", config=VAE.Config.tiny(), **plain)
    return path


def read(path):
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["name"] for row in rows], torch.tensor([float(row["log_likelihood"]) for row in rows]), rows


def test_rows_are_scored_as_they_stand_in_the_file(call, runs):
    status, output, errors = call("score RUNS/maf --split all --out scores.csv")
    assert (status, errors) == (0, "")
    assert "scores.csv: 400 examples" in output
    assert "(exact)" in output
    names, nats, rows = read("scores.csv")
    data, model = ancestral.Run.open(runs / "maf").load_data(), ancestral.load(runs / "maf")
    assert names == data.names_of("all")
    assert "bits_per_dim" not in rows[0]
    with torch.no_grad():
        expected = model.log_likelihood(Batch(data.split("all").x)) + data.log_determinant
    torch.testing.assert_close(nats, expected, atol=1e-4, rtol=1e-4)
    # A density of the file's rows, not of standardized ones: it integrates to one in their units.
    assert abs(data.log_determinant) > 0.5


def test_other_rows_are_scored_as_the_same_rows_would_be_at_home(call, runs):
    assert call("score RUNS/maf --split all --out own.csv")[0] == 0
    names, nats, _ = read("own.csv")
    home = dict(zip(names, nats.tolist(), strict=True))
    lines = (runs / "rows.csv").read_text().splitlines()
    # Fewer rows, with other means and scales.
    Path("new.csv").write_text("\n".join([lines[0], *lines[1:101]]) + "\n")
    assert call("score RUNS/maf --data table:new.csv --split all --out new-scores.csv")[0] == 0
    names, nats, _ = read("new-scores.csv")
    assert nats.tolist() == pytest.approx([home[name] for name in names], abs=1e-4)
    # All rows in their order, equal ones and a single one too, and without the run.
    for count, model in ((100, "RUNS/maf"), (1, "RUNS/maf/model")):
        Path("few.csv").write_text("\n".join([lines[0], *lines[1 : 1 + count], lines[1]]) + "\n")
        assert call(f"score {model} --data table:few.csv --out few-{count}.csv")[0] == 0
        names, nats, _ = read(f"few-{count}.csv")
        assert names == [str(i) for i in range(count + 1)]
        assert nats.tolist() == pytest.approx([home[str(i)] for i in [*range(count), 0]], abs=1e-4)
    Path("other.csv").write_text("\n".join(["a,c,b", *lines[1:101]]) + "\n")
    status, _, errors = call("score RUNS/maf --data table:other.csv --out other-scores.csv")
    assert (status, errors.count("\n")) == (2, 1)
    assert "expected the columns a, b, c, got a, c, b" in errors


def test_images_are_scored_in_bits_too_and_the_strangest_are_named(call, runs):
    status, output, _ = call("score RUNS/vae --importance-samples 3 --limit 20 --out scores.parquet")
    assert status == 0
    table = pq.read_table("scores.parquet").to_pydict()
    nats, bits = table["log_likelihood"], table["bits_per_dim"]
    assert len(nats) == 20
    assert bits[3] == pytest.approx(-nats[3] / (64 * math.log(2)))
    least = min(range(20), key=nats.__getitem__)
    assert f"least likely: {table['name'][least]} ({nats[least]:.4f})" in output
    assert call("score RUNS/vae --importance-samples 3 --limit 20 --out again.parquet")[0] == 0
    assert pq.read_table("again.parquet").to_pydict() == table


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("score RUNS/vae --out scores.txt", "expected a file .csv or .parquet, got scores.txt"),
        ("score RUNS/vae --out there.csv", "expected a new file, got there.csv which is there already"),
        ("score RUNS/maf --importance-samples 5 --out s.csv", "whose likelihood is exact"),
        ("score RUNS/vae --data table:RUNS/rows.csv --out s.csv", "expected"),
    ],
)
def test_mistakes_are_one_line(call, line, said):
    Path("there.csv").touch()
    status, output, errors = call(line)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert said in errors


def test_samples_are_rows_as_in_the_file_by_its_names(call, runs):
    assert call("sample RUNS/maf -n 400 --format files --out .")[0] == 0
    with Path("samples-seed0.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["a", "b", "c"]
    x = np.array(rows, float)
    columns = ancestral.load(runs / "maf").columns
    drawn = ancestral.load(runs / "maf").sample(64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(x[:64], columns.restored(drawn), rtol=1e-6)
    assert abs(x[:, 0].mean() - 5) < 1
    assert x[:, 2].std() < 1


def test_a_table_is_evaluated_column_by_column_beside_a_gaussian(call, runs):
    status, output, errors = call("evaluate RUNS/maf")
    assert (status, errors) == (0, "")
    assert "negative log-likelihood of a Gaussian" in output
    figures = {f.id: f for f in ancestral.evaluate(runs / "maf", write=False).figures}
    data = ancestral.Run.open(runs / "maf").load_data()
    train, test = (data.columns.restored(x).double() for x in (data.train.x, data.test.x))
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    assert figures["nll_gaussian"].value == pytest.approx(float(-gaussian.log_prob(test).mean()), rel=1e-5)
    names = ("marginal_1", "marginal_2", "marginal_3")
    assert figures["marginals"].value == pytest.approx(sum(figures[name].value for name in names) / 3)
    assert 0 < figures["marginals"].floor[0] <= figures["marginals"].floor[1] < 0.5
    picture = runs / "maf" / "samples" / "pairs.png"
    assert str(picture) in output.splitlines()
    assert picture.is_file()
    assert call("report RUNS/maf")[0] == 0
    assert (runs / "maf" / "report.html").read_text().count("Pairs of columns") == 1


def test_columns_that_follow_from_others_have_no_gaussian(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 2))
    np.save(tmp_path / "rows.npy", np.c_[rows, rows.sum(1)])
    run = {"data": f"table:{tmp_path}/rows.npy", "out": tmp_path / "run", "config": MAF.Config.tiny()}
    ancestral.train("maf", **run, stages=SHORT, options=QUICK)
    evaluation = ancestral.evaluate(tmp_path / "run")
    assert "nll_gaussian" not in {figure.id for figure in evaluation.figures}
    assert any("columns follow from others" in sentence for sentence in evaluation.left_out)


def test_rows_that_are_given_in_other_units_are_brought_to_the_models(runs):
    model, data = ancestral.load(runs / "maf"), ancestral.Run.open(runs / "maf").load_data()
    source = f"table:{runs}/rows.csv"
    own = ancestral.evaluate(model, data)["nll"]
    plain = ancestral.data.load_data(source, ancestral.data.TableOptions(standardize=False))
    for other in (source, plain):
        assert ancestral.evaluate(model, other)["nll"] == pytest.approx(own, abs=1e-5)
    hand_made = ancestral.data.Dataset(
        source="mine", spec=data.spec, train=data.train, validation=data.validation, test=data.test
    )
    assert ancestral.evaluate(model, hand_made)["nll"] == pytest.approx(own + data.log_determinant, abs=1e-5)
    model.columns = None
    with pytest.raises(UserError, match="expected a model that was trained on a table's columns"):
        score(model, source, split="test")


def test_a_row_far_out_is_the_least_likely(call, runs):
    Path("far.csv").write_text("a,b,c\n5,0,0\n1,2,1e38\n")
    status, output, _ = call("score RUNS/maf --data table:far.csv --out scores.csv")
    assert status == 0
    assert read("scores.csv")[1][1] == -math.inf
    assert "least likely: 1 (-inf)" in output


def test_measures_of_columns_survive_samples_beyond_all_floats(runs, monkeypatch):
    model, data = ancestral.load(runs / "maf"), ancestral.Run.open(runs / "maf").load_data()
    drawn = model.sample(40, generator=torch.Generator().manual_seed(0))
    drawn[3] = torch.inf
    monkeypatch.setattr(type(model), "sample", lambda *_, **__: drawn)
    result = ancestral.evaluate(model, data, measures=["columns"])
    finite, columns = drawn[drawn.isfinite().all(1)], data.test.x
    expected = [ks_2samp(columns[:, i].numpy(), finite[:, i].numpy()).statistic for i in range(3)]
    assert [result[f"marginal_{i}"] for i in (1, 2, 3)] == pytest.approx(expected)
    assert result.left_out == ["1 samples beyond all floats are left out of the columns."]
    (mean,) = (figure for figure in result.figures if figure.id == "marginals")
    assert mean.floor is not None
    trained = ancestral.evaluate(model, data, measures=["columns"], split="train")
    assert trained.figures[0].floor is None  # there are no others


def test_shards_of_rows_are_in_the_files_units_and_stay_so(call, runs):
    assert call("sample RUNS/maf -n 20 --format shards --out shards")[0] == 0
    with np.load("shards/shard-00000.npz") as file:
        assert abs(file["x"][:, 0].mean() - 5) < 3
    model = ancestral.load(runs / "maf")
    model.columns = replace(model.columns, means=(100.0, 0.0, 0.0))
    with pytest.raises(UserError, match="columns"):
        ancestral.sample_shards(model, 20, "shards")
