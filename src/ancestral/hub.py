"""A model on disk or on the Hugging Face Hub: ``config.json`` and ``model.safetensors``."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from ancestral.errors import UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def fetch(name: str) -> Path:
    """The folder of a model: ``name`` itself if it is a folder with one, else the Hub's repository of that name, downloaded.

    Raises:
        UserError: there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"expected a model or a run in {name}, got a folder without {CONFIG}", "give a run directory or its model/ folder"
            )
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"expected a run directory or a Hub name OWNER/NAME, got {name}", "check the path")
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (RepositoryNotFoundError, HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = type(error).__name__
        raise UserError(
            f"expected a run directory or a model on the Hub, got {name} which is neither ({reason})", "check the name"
        ) from None


def push(folder: Path, name: str, *, token: str | None = None, private: bool = False, api: Any = None) -> str:
    """Upload a model's folder to the repository ``name`` of the Hub (made if it is not there); its address."""
    api = api or HfApi(token=token or os.environ.get("HF_TOKEN"))
    api.create_repo(name, private=private, exist_ok=True)
    return str(
        api.upload_folder(repo_id=name, folder_path=str(folder), allow_patterns=[CONFIG, WEIGHTS], commit_message="Upload with ancestral")
    )
