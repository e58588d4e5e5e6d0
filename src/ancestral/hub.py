"""A model on disk or on the Hugging Face Hub: ``config.json`` and ``model.safetensors``."""

import difflib
import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from ancestral.errors import UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def fetch(name: str) -> Path:
    """The folder of a model.

    It is ``name`` itself if that is a folder with one, else the Hub's repository of that name, downloaded.

    Raises:
        UserError: there is neither, or the Hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"expected a model or a run in {name}, got a folder without {CONFIG}",
                "give a run directory or its model/ folder",
            )
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"expected a run directory or a Hub name OWNER/NAME, got {name}",
            _nearest(folder) or "check the path",
        )
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _no_folder(folder, "the Hub knows no such model") or UserError(
            "expected a run directory or a model on the Hub, "
            f"got {name} which is neither ({type(error).__name__})",
            "check the name",
        ) from None
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        # The Hub's library looks into its cache before it gives up, and hides why it had to behind what it
        # missed there.
        problem = _unreachable(error.__cause__ or error, constants.ENDPOINT)
        raise _no_folder(folder, problem.problem) or problem from None


def _no_folder(folder: Path, hub: str) -> UserError | None:
    """What is wrong with a name that the Hub does not know, if it looks like a folder.

    It does if the folder that it is to be in is there.
    """
    if not folder.parent.is_dir():
        return None
    problem = (
        f"expected a run directory or a model on the Hub, got {folder}: there is no such folder, and {hub}"
    )
    return UserError(problem, _nearest(folder) or f"see what {folder.parent} holds")


def _nearest(folder: Path) -> str | None:
    """The remedy for a folder that is not there: one beside it of nearly that name."""
    if folder.exists() or not folder.parent.is_dir():
        return None
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    close = difflib.get_close_matches(folder.name, beside, n=1, cutoff=0.5)
    return f"did you mean {folder.parent / close[0]}?" if close else None


def push(folder: Path, name: str, *, token: str | None = None, private: bool = False, api: Any = None) -> str:
    """Upload a model's folder to the repository ``name`` of the Hub (made if it is not there); its address.

    Raises:
        UserError: the name is none, the Hub cannot be reached, or it refuses.
    """
    api = api or HfApi(token=token or os.environ.get("HF_TOKEN"))
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=name,
                folder_path=str(folder),
                allow_patterns=[CONFIG, WEIGHTS],
                commit_message="Upload with ancestral",
            )
        )
    except HFValidationError:
        raise UserError(f"expected a Hub name OWNER/NAME, got {name}", "check the name") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = (
            "log in with: hf auth login, as somebody who may write there"
            if status in (401, 403)
            else "check the name, or try again later"
        )
        raise UserError(f"expected to upload to {name}, got status {status} from the Hub", remedy) from None
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # httpx's, which the Hub's library does not export
        raise _unreachable(error, api.endpoint) from None


def _unreachable(error: BaseException, endpoint: str) -> UserError:
    reason = f"{type(error).__name__}: {error}".strip(": ")
    return UserError(
        f"expected to reach the Hugging Face Hub at {endpoint}, got {reason}",
        "check the connection and HF_ENDPOINT",
    )
