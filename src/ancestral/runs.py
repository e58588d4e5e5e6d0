"""The run directory: the one thing that commands hand to each other."""

import importlib.metadata
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ancestral import hub
from ancestral.configuration import differences, from_json, to_json
from ancestral.data import PREPARATIONS, Dataset, Preparation, load_data
from ancestral.errors import UserError, check_type, shown
from ancestral.files import is_leftover, read_json, write_json
from ancestral.manifest import Manifest
from ancestral.model import Model, Saved
from ancestral.processes import launched
from ancestral.records import as_record, read_record
from ancestral.taxonomy import import_model, model_class, name_of, rows

_IDENTITY = ("model", "config", "spec", "stages", "preparation", "result_options", "from", "only")
"""What makes two runs the same run."""
LOCK = ".lock"
"""The file in a run directory that the process that trains there has locked."""
_NEEDED = {
    "model": str,
    "config": dict,
    "spec": dict,
    "stages": dict,
    "data": dict,
    "preparation": dict,
    "result_options": dict,
    "command": str,
}
"""What every ``run.json`` has."""


@dataclass(frozen=True)
class Run:
    """A run directory and what ``run.json`` says of it."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> "Run":
        """Begin a run at ``path``, or go on with the same run. Raises UserError like ``check``."""
        there = cls.check(path, manifest)
        if there is not None:
            return there
        write_json(path / "run.json", manifest)
        return cls(path, manifest)

    @classmethod
    def check(cls, path: Path, manifest: dict[str, Any]) -> "Run | None":
        """The run at ``path`` if it is the same run; None if there is nothing yet.

        Raises:
            UserError: the folder holds another run (the differing options are named) or something else.
        """
        if not (path / "run.json").exists():
            if path.exists() and (not path.is_dir() or not all(map(_is_trace, path.iterdir()))):
                problem = f"expected a new or an empty folder, got {path} which holds something else"
                raise UserError(problem, "choose another --out")
            return None
        run = cls.open(path)
        pairs = [(key, run.manifest.get(key), manifest.get(key)) for key in _IDENTITY]
        differing = [_flag(d, manifest) for key, a, b in pairs for d in differences(a, b, key)]
        if run.manifest.get("model") != manifest.get("model"):  # all other options differ then
            differing = [f"model ({run.manifest.get('model')} there, {manifest.get('model')} here)"]
        prepared = any(d.startswith(f"--{manifest['preparation']['kind']}.") for d in differing)
        if prepared:  # what follows from that need not be said
            differing = [d for d in differing if not d.startswith("spec.")]
        there, here = run.manifest["data"], manifest["data"]
        if there["fingerprint"] != here["fingerprint"]:
            if there["source"] != here["source"]:
                differing.append(f"data ({there['source']} there, {here['source']} here)")
            elif not prepared:
                differing.append("the data's content")
        if differing:
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            problem = f"got {path} which holds a run with other options: {', '.join(differing[:4])}{more}"
            raise UserError(f"expected a new folder or the same run, {problem}", "choose another --out")
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """The run at ``path``. Raises UserError if there is none."""
        path = Path(path)
        if not (path / "run.json").is_file():
            raise UserError(
                f"expected a run directory, got {path} without run.json",
                "give the --out of an `ancestral train`",
            )
        manifest = read_json(path / "run.json")
        absent = [
            k
            for k, kind in _NEEDED.items()
            if not isinstance(manifest, dict) or not isinstance(manifest.get(k), kind)
        ]
        if absent or not {"source", "fingerprint"} <= manifest["data"].keys():
            got = f"one without {absent[0]}" if absent and isinstance(manifest, dict) else "something else"
            raise UserError(
                f"expected the description of a run in {path / 'run.json'}, got {got}",
                "restore the file or train anew",
            )
        if isinstance(manifest.get("from"), str):  # of an earlier version, which wrote one run without a list
            manifest["from"] = [manifest["from"]]
        as_record(Manifest, manifest, path / "run.json")
        return cls(path, manifest)

    @property
    def model_name(self) -> str:
        """The model's name in the taxonomy, or ``module:Class``."""
        return str(self.manifest["model"])

    @property
    def preparation(self) -> Preparation:
        """How the data were prepared. Raises UserError if the description of the run is damaged."""
        there = self.manifest["preparation"]
        kind = there.get("kind")
        if kind not in list(PREPARATIONS):  # not in the keys: it may be a list, which has no hash
            problem = f"expected a kind of data in {self.path / 'run.json'}, got {shown(kind)}"
            raise UserError(problem, f"choose from {', '.join(PREPARATIONS)}")
        return from_json(PREPARATIONS[kind], there, where=kind)

    def load_data(self) -> Dataset[Any]:
        """The data that the run was trained on.

        Raises:
            UserError: they are gone, have changed, or were a data set of somebody's own that no source names.
        """
        if self.preparation.kind == Preparation.kind:
            problem = f"expected a source of data in {self.path}, got a run on a data set of your own"
            raise UserError(problem, "give that data set to the function, or name a source with --data")
        data = load_data(self.manifest["data"]["source"], self.preparation)
        if data.fingerprint != self.manifest["data"]["fingerprint"]:
            raise UserError(
                f"expected the data of the run, got {data.source} which has changed since",
                "name the data to use with --data",
            )
        return data

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages that the run has trained or taken over. Raises UserError like ``load_model``."""
        return read_record(Saved, self._model() / hub.CONFIG).trained

    def _model(self) -> Path:
        """The folder of the trained model. Raises UserError while training has not finished a stage."""
        folder = self.path / "model"
        if not (folder / hub.CONFIG).is_file():
            raise UserError(
                f"expected a trained model in {self.path}, got a run that has not finished a stage",
                f"go on with: {self.manifest['command']}",
            )
        return folder

    def load_model(self, device: str | torch.device = "cpu") -> Model:
        """The trained model, in evaluation mode. Raises UserError while training has not finished a stage."""
        return model_class(self.model_name).from_pretrained(self._model()).to(device)


def _is_trace(path: Path) -> bool:
    """Whether a path is what a training leaves that is killed as it begins."""
    return path.name == LOCK or is_leftover(path)


def _flag(difference: str, manifest: dict[str, Any]) -> str:
    """A difference of two manifests, named as the option that makes it."""
    name, _, values = difference.partition(" ")
    section, _, option = name.partition(".")
    prefixes = {
        "config": "--model.",
        "stages": "--",
        "preparation": f"--{manifest['preparation']['kind']}.",
        "result_options": "--",
        "from": "--from",
        "only": "--stages",
    }
    if option == "processes":
        return f"the number of processes {values}"
    if section not in prefixes:
        return difference
    option = option.replace(".phases.", ".").removesuffix(".kind")
    return f"{prefixes[section]}{option.replace('_', '-')} {values}"


def load(name: str | Path, device: str | torch.device = "cpu") -> Model:
    """A trained model from a run directory, a ``model/`` folder or the Hugging Face Hub, in evaluation mode.

    A model of somebody's own is imported from the module that it was defined in, if it lies on this machine;
    of what comes from the Hub only models of the taxonomy are.

    Raises:
        UserError: there is none, or its class cannot be found.
    """
    check_type(name, str | Path, "the name of a model", "give a run directory, a model/ folder or a Hub name")
    if (Path(name) / "run.json").is_file():
        return Run.open(name).load_model(device)
    folder = hub.fetch(str(name))
    saved = read_record(Saved, folder / hub.CONFIG)
    module, kind = saved.module, saved.class_
    known = {r.place for r in rows() if r.place}
    own = module is not None and not module.startswith("ancestral.") and Path(name).is_dir()
    if (str(module), kind) not in known and not own:
        choices = ", ".join(sorted(name for _, name in known))
        problem = f"expected a model of ancestral in {folder}, got {kind}"
        raise UserError(problem, f"choose one of class {choices}")
    return import_model(str(module), kind).from_pretrained(folder).to(device)


def manifest(
    model: type[Model],
    *,
    config: Any,
    spec: Any,
    stages: Any,
    data: Dataset[Any],
    options: Any,
    result_options: Any,
    recipe: str,
    source: str,
) -> dict[str, Any]:
    """What ``run.json`` records, from values that are JSON already and the data."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return {
        "model": name_of(model),
        "recipe": recipe,
        "source": source,
        "config": config,
        "spec": spec,
        "stages": stages,
        "data": data.describe(),
        "preparation": to_json(data.preparation),
        "options": options,
        "result_options": result_options,
        "seed": result_options["seed"],
        "versions": {
            "ancestral": importlib.metadata.version("ancestral"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores{gpu}",
        "command": command(),
    }


def command() -> str:
    """The command line of this process, as one would type it."""
    if launched():  # with another number of processes it would be another run
        return shlex.join(
            [
                "torchrun",
                f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}",
                "-m",
                "ancestral.cli",
                *sys.argv[1:],
            ]
        )
    program = Path(sys.argv[0]).name
    if program in ("-c", "__main__.py"):
        program = "ancestral"
    return shlex.join(
        [*(["python", sys.argv[0]] if program.endswith(".py") else [program or "python"]), *sys.argv[1:]]
    )
