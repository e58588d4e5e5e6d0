"""Tables of real numbers: files .csv, .parquet, or .npy with two dimensions.

Or a folder with a file for each split: train, validation (which may be left out) and test.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from ancestral.batch import Batch
from ancestral.columns import Columns, named
from ancestral.data.bundled_tables import BUNDLED
from ancestral.data.dataset import Dataset
from ancestral.data.pictures import SPLITS, TRAIN
from ancestral.data.preparation import TABLE, TableOptions
from ancestral.data.splits import assign, content_hashes
from ancestral.errors import UserError, nearest
from ancestral.files import read_array
from ancestral.spec import Spec

_ENDINGS = (".csv", ".parquet", ".npy")


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    columns: tuple[str, ...]
    values: NDArray[np.float32]
    """``(N, D)``, finite."""
    splits: NDArray[np.int8] | None = None
    """The split of each row, where the source has splits of its own."""


def load_table(source: str, options: TableOptions) -> Dataset:
    """The data set of ``table:FILE`` or ``table:FOLDER``, or of ``table:NAME`` of a table that is at hand.

    Raises:
        UserError: there is no such file, it holds something else than numbers, or a split would be empty.
    """
    path, table = _find(source)
    hashes, n = content_hashes(table.values), len(table.values)
    given = np.full(n, TRAIN, np.int8) if table.splits is None else table.splits
    remedy = "give more rows that differ: equal rows never stand in two splits"
    usable = np.ones(n, np.bool_)
    found = assign(str(path), hashes, given, usable, options, remedy=remedy)
    rows = found.rows
    x = {name: table.values[rows[name]] for name in SPLITS}
    if (constant := (x["train"] == x["train"][0]).all(0)).any():
        column = table.columns[int(constant.argmax())]
        problem = f"expected columns that vary in {path}, got the same number all over column {column}"
        raise UserError(problem, "leave it out of the file: its density has no bounds")
    columns = Columns(names=table.columns)
    if options.standardize:
        train = x["train"].astype(np.float64)
        columns = replace(columns, means=(*train.mean(0).tolist(),), scales=(*train.std(0).tolist(),))
    made = {"train": "what the other splits leave"}
    for split, share in (("validation", options.validation), ("test", options.test)):
        own = table.splits is not None and (table.splits == SPLITS.index(split)).any()
        by_hash = f"{share:.4g} of train, in the order of a hash of the values"
        made[split] = "the source's own" if own else by_hash
    return Dataset(
        source=_absolute(source),
        spec=Spec(shape=(len(table.columns),), levels=None),
        train=Batch(columns.standardized(torch.from_numpy(x["train"]))),
        validation=Batch(columns.standardized(torch.from_numpy(x["validation"]))),
        test=Batch(columns.standardized(torch.from_numpy(x["test"]))),
        preparation=options,
        duplicates=found.duplicates,
        made=made,
        names={name: tuple(map(str, rows[name].tolist())) for name in SPLITS},
        columns=columns,
    )


def load_rows(source: str, columns: Columns) -> Dataset:
    """All rows of a table, in the units that a model was trained on, in one split, which is called train.

    Raises:
        UserError: there is no such file, it holds something else than numbers, or its columns are others.
    """
    _, table = _find(source)
    columns.check_same(Columns(names=table.columns))
    rows = Batch(columns.standardized(torch.from_numpy(table.values)))
    return Dataset(
        source=_absolute(source),
        spec=Spec(shape=(len(table.columns),), levels=None),
        train=rows,
        validation=rows[:0],
        test=rows[:0],
        columns=columns,
    )


def _find(source: str) -> tuple[Path, Table]:
    """The path of a source, and its rows. Raises UserError for columns of the same name."""
    name = source.removeprefix(TABLE)
    path = Path(name).expanduser()
    if name in BUNDLED:
        table = Table(*BUNDLED[name]())
    else:
        table = _read_splits(path) if path.is_dir() else read_table(path)
    if twice := [name for name in table.columns if table.columns.count(name) > 1]:
        raise UserError(f"expected columns of different names in {path}, got {twice[0]} twice", "rename one")
    return path, table


def _absolute(source: str) -> str:
    """The source as it is called from anywhere: a run is evaluated from there."""
    name = source.removeprefix(TABLE)
    return source if name in BUNDLED else f"{TABLE}{Path(name).expanduser().resolve()}"


def _read_splits(folder: Path) -> Table:
    """The tables of a folder, one a split."""
    found: dict[str, Table] = {}
    for split in SPLITS:
        files = [file for ending in _ENDINGS if (file := folder / f"{split}{ending}").is_file()]
        if len(files) > 1:
            got = " and ".join(file.name for file in files)
            raise UserError(f"expected one table of the split {split} in {folder}, got {got}", "remove one")
        if files:
            found[split] = read_table(files[0])
    if "train" not in found:
        problem = f"expected a table of each split in {folder}, got none called train"
        raise UserError(problem, "name them train.csv, validation.csv, test.csv; .parquet and .npy will do")
    columns = found["train"].columns
    for split, table in found.items():
        if table.columns != columns:
            problem = f"expected the columns of train in {split} of {folder}: {', '.join(columns)}"
            raise UserError(f"{problem}, got {', '.join(table.columns)}", "give all splits the same columns")
    codes = [np.full(len(t.values), SPLITS.index(split), np.int8) for split, t in found.items()]
    return Table(columns, np.concatenate([t.values for t in found.values()]), np.concatenate(codes))


def read_table(path: Path) -> Table:
    """The numbers of a file. Raises UserError, naming the first row and column without one."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else f"nothing there (looked for {path.absolute()})"
        remedy = "check the path" if path.suffix or path.is_dir() else nearest(str(path), BUNDLED)
        raise UserError(f"expected a table {path}, got {got}", remedy)
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        if path.suffix.lower() == ".npy":
            return _read_npy(path)
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error})", "check the file") from error
    problem = f"expected a table .csv, .parquet or .npy, got {path}"
    raise UserError(problem, "save it as comma-separated values, or with numpy.save")


def _read_npy(path: Path) -> Table:
    values = read_array(path)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiub":
        problem = (
            f"expected numbers of shape (rows, columns) in {path}, got {values.dtype} of shape {values.shape}"
        )
        raise UserError(problem, "save them with numpy.save(path, array.reshape(rows, -1))")
    single = _single(values)
    if not np.isfinite(single).all():
        row, column = np.argwhere(~np.isfinite(single))[0].tolist()
        where = f"row {row}, column {column} (counted from 0)"
        raise _no_number(path, str(values[row, column]), where)
    return Table(named((), values.shape[1]), single)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa  # noqa: PLC0415  # need not be there for the rest
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        problem = f"expected the package pyarrow to read {path}, got none"
        raise UserError(problem, "pip install pyarrow, or save the table as .csv") from None
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        problem = f"expected a Parquet file, got {path} ({str(error).partition('.')[0]})"
        raise UserError(problem, "check the file") from None
    if not table.num_columns or not len(table):
        raise UserError(f"expected rows of numbers in {path}, got none", "check the file")
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            problem = f"expected columns of numbers in {path}, got {kind} in column {name}"
            raise UserError(problem, "leave it out of the file, or write its values as numbers")
        values = (
            column.cast(pa.float64()).to_numpy()
            if kind != pa.bool_()
            else np.array(column.to_pylist(), float)
        )
        columns.append(_single(values))
        if not np.isfinite(columns[-1]).all():
            row = int(np.flatnonzero(~np.isfinite(columns[-1]))[0])
            got = column[row].as_py()
            raise _no_number(
                path, "" if got is None else str(got), f"row {row} (counted from 0), column {name}"
            )
    if not columns or not len(table):
        raise UserError(f"expected rows of numbers in {path}, got none", "check the file")
    return Table(tuple(table.column_names), np.stack(columns, 1))


def _read_csv(path: Path) -> Table:
    with _text(path) as file:
        reader = csv.reader(file)
        first = next(filter(None, reader), [])
        lines = reader.line_num
        header = not any(map(_is_number, first))
        if not first or (header and not any(reader)):
            problem = f"expected rows of numbers in {path}, got {'names alone' if first else 'nothing'}"
            raise UserError(problem, "check the file")
    names = [name.strip() for name in first] if header else [""] * len(first)
    columns = tuple(name or number for name, number in zip(names, named((), len(names)), strict=True))
    with _text(path) as file:
        for _ in range(lines if header else 0):
            next(file)
        try:
            values = np.loadtxt(file, delimiter=",", quotechar='"', comments=None, ndmin=2)
        except ValueError as error:
            raise _fault(path, columns, header, str(error)) from None
    single = _single(values)
    if single.shape[1] != len(columns) or not np.isfinite(single).all():
        raise _fault(path, columns, header, "NaN or infinity")
    return Table(columns, single)


def _fault(path: Path, columns: tuple[str, ...], header: bool, otherwise: str) -> UserError:
    """What is wrong with a .csv file: the first row of another length, or value that is no number."""
    with _text(path) as file:
        reader = csv.reader(file)
        rows = filter(None, reader)
        if header:
            next(rows)
        for row in rows:
            line = f"line {reader.line_num}"
            if len(row) != len(columns):
                problem = f"expected {len(columns)} values in each row of {path}, got {len(row)} in {line}"
                return UserError(problem, "separate the values by commas, and leave none out")
            for column, value in zip(columns, row, strict=True):
                if not _is_number(value) or not np.isfinite(_single(np.array(float(value)))):
                    return _no_number(path, value.strip(), f"{line}, column {column}")
    return UserError(f"expected rows of numbers in {path}, got {otherwise}", "check the file")


def _no_number(path: Path, got: str, where: str) -> UserError:
    return UserError(
        f"expected finite numbers (of 32 bits) in {path}, got {got or 'a missing value'} in {where}",
        "mend it, or leave its row or column out of the file",
    )


def _text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    """32 bits, infinite where these do not suffice; no zero is negative: equal rows have equal bytes."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32) + np.float32(0)
