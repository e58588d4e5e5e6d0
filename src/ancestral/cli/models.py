"""``ancestral models``: the taxonomy as a tree."""

import os
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table

from ancestral.cli.parse import parse
from ancestral.taxonomy import FAMILIES, rows


@dataclass(frozen=True)
class Options:
    """Show the taxonomy: every model, how it learns, what its likelihood is."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the rows as JSON instead."""


def main(arguments: list[str]) -> None:
    """Print the taxonomy."""
    options = parse(Options, arguments, "models")
    if options.json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows()], indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160  # a row a line, for grep
    papers = console.width >= 120
    for family, meaning in FAMILIES.items():
        console.print(f"[bold]{family}[/bold]  {meaning}", soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for column in range(5 if papers else 4):
            table.add_column(no_wrap=column != 1)
        family_rows = [row for row in rows() if row.representation == family]
        for row in family_rows:
            branch = "└─" if row is family_rows[-1] else "├─"
            authors, _, address = row.paper.partition(", https://")
            cells = [f"{branch} {row.name}", row.learning, row.likelihood, authors]
            table.add_row(*cells, *([address] if papers else []))
        console.print(table)
        console.print()
    console.print("exact: log p(x) itself; bound: a lower bound of it; none: no likelihood.", style="dim")
