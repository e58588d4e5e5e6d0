"""``python -m ancestral``: the command line."""

from ancestral.cli.main import main

main()
