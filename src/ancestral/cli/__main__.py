"""``python -m ancestral.cli``: the command line where launchers such as torchrun want a module."""

from ancestral.cli.main import main

main()
