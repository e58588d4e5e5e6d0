"""Tables that need no file, and folders of tables."""

import numpy as np
import pytest

from ancestral.data import load_data
from ancestral.errors import UserError


def test_patches_have_splits_of_their_own_and_sum_to_what_is_left_out():
    data = load_data("table:patches")
    assert data.spec.shape == (63,)
    assert data.source == "table:patches"
    assert set(data.made.values()) >= {"the source's own"}
    sizes = [len(data.split(name)) for name in ("train", "validation", "test")]
    assert sizes[0] > 70_000
    assert sizes[0] > 2.5 * sizes[1] > 2.5 * 0.9 * sizes[2]
    raw = data.columns.restored(data.train.x)
    assert float(raw.abs().max()) < 1
    # The noise of a level: differences of neighbors are never finer than it lets them be alike.
    again = load_data("table:patches")
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize(("name", "rows", "columns"), [("iris", 150, 4), ("wine", 178, 13)])
def test_scikit_learns_tables_are_at_hand(name, rows, columns):
    data = load_data(f"table:{name}")
    assert data.spec.shape == (columns,)
    assert sum(len(data.split(split)) for split in ("train", "validation", "test")) == rows
    assert all(data.columns.names)
    assert np.allclose(data.train.x.mean(0), 0, atol=1e-5)


def test_a_name_that_is_no_table_gets_the_nearest():
    with pytest.raises(UserError, match=r"expected a table irs, got nothing there .*did you mean iris"):
        load_data("table:irs")


def test_a_folder_has_a_table_for_each_split(tmp_path):
    rows = np.random.default_rng(0).normal(size=(100, 2))
    np.savetxt(tmp_path / "train.csv", rows[:70], delimiter=",", header="a,b", comments="")
    np.savetxt(tmp_path / "test.csv", rows[70:], delimiter=",", header="a,b", comments="")
    data = load_data(f"table:{tmp_path}")
    assert len(data.test) == 30
    assert len(data.train) + len(data.validation) == 70
    assert data.made["test"] == "the source's own"
    assert data.made["validation"].endswith("hash of the values")
    raw = data.columns.restored(data.test.x)
    np.testing.assert_allclose(raw.numpy(), rows[70:], rtol=1e-5, atol=1e-6)
    np.savetxt(tmp_path / "validation.csv", rows[:5, ::-1], delimiter=",", header="b,a", comments="")
    with pytest.raises(UserError, match=r"the columns of train in validation .*: a, b, got b, a; give all"):
        load_data(f"table:{tmp_path}")
    (tmp_path / "train.csv").rename(tmp_path / "training.csv")
    with pytest.raises(UserError, match=r"expected a table of each split in .*, got none called train"):
        load_data(f"table:{tmp_path}")
