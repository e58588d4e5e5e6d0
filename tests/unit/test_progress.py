"""Bars are for people at a terminal, and change nothing."""

import pytest
from rich.console import Console

from ancestral import progress


def test_nothing_is_shown_where_nobody_looks(capsys):
    with progress.bar("work") as tell:
        tell(0.5)
    assert list(progress.watched("abc", "work")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "expected"), [(None, "50%"), (4, "2/4")])
def test_a_terminal_is_told_how_much_is_done(monkeypatch, capsys, total, expected):
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=80)
    )
    with progress.bar("decoding", total=total) as tell:
        tell(0.5 * (total or 1))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "decoding" in shown.err
    assert expected in shown.err
    with progress.bar("decoding", show=False) as tell:
        tell(0.5)
    assert capsys.readouterr().err == ""


def test_items_can_be_left_early():
    for item in progress.watched([1, 2, 3], "work"):
        if item == 2:
            break
    assert item == 2
