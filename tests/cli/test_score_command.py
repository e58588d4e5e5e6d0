"""``ancestral score``: how likely each example is."""

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import ancestral
from ancestral.batch import Batch
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
        expected = model.log_likelihood(Batch(data.split("all").x)) - sum(map(math.log, data.scales))
    torch.testing.assert_close(nats, expected, atol=1e-4, rtol=1e-4)
    # A density of the file's rows, not of standardized ones: it integrates to one in their units.
    assert abs(sum(map(math.log, data.scales))) > 0.5


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
