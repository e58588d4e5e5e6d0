"""``ancestral --completion``: what a shell completes."""

import importlib

from ancestral.cli.main import COMMANDS
from ancestral.cli.parse import known_options
from ancestral.cli.train import options_of
from ancestral.taxonomy import model_class, rows
from ancestral.training.plan import Plan

_SCRIPT = """_ancestral() {{
  local words
  case "$COMP_CWORD ${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
    "1 "*) words="{commands}" ;;
    "2 train "*) words="{models}" ;;
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _ancestral ancestral
"""


def script() -> str:
    """A function of bash (and of zsh after bashcompinit) that knows commands, models and options."""
    models = [row.name for row in rows()]
    words = {}
    for name in models:
        default = options_of(Plan.of(model_class(name), None))
        words[f'" train {name}"'] = known_options(type(default), default)
    for command in COMMANDS.keys() - {"train"}:
        words[f'" {command} "*'] = known_options(importlib.import_module(f"ancestral.cli.{command}").Options)
    cases = [f'    *{where}) words="{" ".join(options)}" ;;' for where, options in sorted(words.items())]
    return _SCRIPT.format(commands=" ".join(COMMANDS), models=" ".join(models), cases="\n".join(cases))
