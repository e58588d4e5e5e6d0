"""The preparation of MAF's tables, on small tables with the same oddities."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

TABLES = Path(__file__).parents[2] / "examples" / "tables.py"


def prepared(tmp_path, name, source):
    command = [sys.executable, str(TABLES), name, str(source), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return [np.load(tmp_path / "out" / f"{split}.npy") for split in ("train", "validation", "test")]


def test_gas_drops_sensors_that_go_together_and_is_in_order(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    columns = {"Time": range(200), "Meth": a, "Eth": b, "R1": a, "R2": a + 0.01 * b, "R3": b, "R4": 2 * a}
    pd.DataFrame(columns).to_pickle(tmp_path / "gas.pickle")
    train, validation, test = prepared(tmp_path, "gas", tmp_path / "gas.pickle")
    assert (len(train), len(validation), len(test)) == (162, 18, 20)
    x = np.stack([b, 2 * a], 1)  # of R1, R2, R4 the last is left
    expected = (x - x.mean(0)) / x.std(0, ddof=1)
    np.testing.assert_allclose(np.concatenate([train, validation, test]), expected, rtol=1e-5, atol=1e-6)


def test_hepmass_takes_one_class_and_drops_what_repeats_its_least_value(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    x[:, 1] = rng.integers(0, 3, 100)  # least value many times
    x[:, 2] = np.minimum(x[:, 2], 0.5)  # greatest value many times: stays
    labels = np.arange(100) % 2
    table = pd.DataFrame(np.c_[labels, x], columns=["label", "f0", "f1", "f2", "mass"])
    table.to_csv(tmp_path / "1000_train.csv", index=False)
    table.assign(extra=0.0).to_csv(tmp_path / "1000_test.csv", index=False)
    train, validation, test = prepared(tmp_path, "hepmass", tmp_path)
    assert (train.shape, validation.shape, test.shape) == ((45, 3), (5, 3), (50, 3))
    ones = x[labels == 1]
    expected = ((ones - ones.mean(0)) / ones.std(0, ddof=1))[:, [0, 2, 3]]
    np.testing.assert_allclose(np.concatenate([train, validation]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(test, expected, rtol=1e-5, atol=1e-6)
