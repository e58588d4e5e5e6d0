"""``ancestral models``: the taxonomy as a tree."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ancestral.cli.parse import parse
from ancestral.taxonomy import FAMILIES, TAXONOMY


@dataclass(frozen=True)
class Options:
    """Show the taxonomy: every model, what it represents, how it learns, what its likelihood is."""

    json: bool = False
    """Print the rows as JSON instead."""


def main(arguments: list[str]) -> None:
    """Print the taxonomy."""
    options = parse(Options, arguments, "models")
    if options.json:
        import json  # noqa: PLC0415
        from dataclasses import asdict  # noqa: PLC0415

        print(json.dumps([asdict(row) | {"planned": row.path is None} for row in TAXONOMY], indent=2))
        return
    console = Console(highlight=False)
    for family, meaning in FAMILIES.items():
        console.print(f"[bold]{family}[/bold]  {meaning}", soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        rows = [row for row in TAXONOMY if row.representation == family]
        for row in rows:
            branch = "└─" if row is rows[-1] else "├─"
            style = "dim" if row.path is None else ""
            state = "planned" if row.path is None else ""
            table.add_row(f"{branch} {row.name}", row.learning, row.likelihood, state, row.paper.replace("https://", ""), style=style)
        console.print(table)
        console.print()
    console.print("exact: log p(x) of the integers; bound: a lower bound of it; none: no likelihood.", style="dim")
