"""Models on disk and on the Hugging Face Hub, for which a server on this machine stands in."""

import base64
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from ancestral import hub
from ancestral.batch import Batch
from ancestral.capabilities import Converts
from ancestral.errors import UserError
from ancestral.files import checksum
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.latent.vae import VAE
from ancestral.runs import load
from ancestral.spec import Spec
from ancestral.taxonomy import TAXONOMY, model_class
from ancestral.testing import enumerate_examples

NAMES = [row.name for row in TAXONOMY]
SPEC = Spec(shape=(1, 2, 2), levels=3, classes=2)


def build(name, spec=SPEC):
    cls = model_class(name)
    if getattr(cls, "dims", 2) == 1 or issubclass(cls, Converts):
        spec = replace(spec, shape=(1, 4), domain="sound")
    torch.manual_seed(0)
    model = cls(cls.Config.tiny(), spec).eval()
    for value in model.state_dict().values():  # weights and statistics that nobody starts with
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    return model


def small():
    torch.manual_seed(0)
    return GatedPixelCNN(replace(GatedPixelCNN.Config.tiny(), width=2, layers=1), SPEC).eval()


def same(a, b):
    assert type(a) is type(b)
    assert a.config == b.config
    assert a.spec == b.spec
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
        assert value.dtype == b.state_dict()[name].dtype


def drawn(model):
    labels = torch.arange(8) % 2 if model.sample_classes else None
    return model.sample(8, labels, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_every_model_comes_back(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path / "deep" / "model")
    assert sorted(p.name for p in (tmp_path / "deep" / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    for loaded in (
        type(model).from_pretrained(tmp_path / "deep" / "model"),
        load(tmp_path / "deep" / "model"),
    ):
        same(loaded, model)
        assert not loaded.training
        assert torch.equal(drawn(loaded), drawn(model))
        if name == "gated-pixelcnn":
            x = Batch(enumerate_examples(SPEC))
            assert torch.equal(loaded.log_likelihood(x), model.log_likelihood(x))
    model.save_pretrained(tmp_path / "deep" / "model")  # once more over itself


def test_wrong_class_is_an_error(tmp_path):
    small().save_pretrained(tmp_path / "model")
    with pytest.raises(
        UserError, match=r"expected a VAE in .*model, got GatedPixelCNN; load it with ancestral.load"
    ):
        VAE.from_pretrained(tmp_path / "model")


def test_weights_of_another_configuration_name_the_first_misfit(tmp_path):
    model = small()
    model.save_pretrained(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    for change, message in [
        (
            {"first_vertical.weight": torch.zeros(3, 1, 2, 3)},
            r"first_vertical.weight is \(3, 1, 2, 3\), not \(2, 1, 2, 3\)",
        ),
        ({"first_vertical.bias": None}, r"first_vertical.bias is none, not \(2,\)"),
        ({"stranger": torch.zeros(2)}, r"stranger is \(2,\), not none"),
    ]:
        changed = {k: v for k, v in (weights | change).items() if v is not None}
        save_file(changed, tmp_path / "model" / "model.safetensors")
        said = json.loads((tmp_path / "model" / "config.json").read_text())
        said["sha256"] = checksum(tmp_path / "model" / "model.safetensors")
        (tmp_path / "model" / "config.json").write_text(json.dumps(said))
        expected = (
            f"expected weights for this configuration, got others in .*: {message}; use the configuration"
        )
        with pytest.raises(UserError, match=expected):
            GatedPixelCNN.from_pretrained(tmp_path / "model")


OWN = """
from ancestral.models.latent.vae import VAE

class Mine(VAE):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A trained model whose class lies in a module of somebody's own, as a folder."""
    (tmp_path / "somebodys_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    model = model_class("somebodys_models:Mine")(VAE.Config.tiny(), SPEC).eval()
    model.save_pretrained(tmp_path / "model")
    yield model, tmp_path / "model"
    sys.modules.pop("somebodys_models", None)


def test_a_model_of_ones_own_is_loaded_from_its_module(own, monkeypatch):
    model, folder = own
    said = json.loads((folder / "config.json").read_text())
    assert (said["module"], said["class"]) == ("somebodys_models", "Mine")
    same(load(folder), model)
    # From the Hub, nothing but this library's models is imported, whatever the file names.
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(UserError, match=r"expected a model of ancestral in .*, got Mine; choose one of"):
        load("somebody/mine")
    same(type(model).from_pretrained("somebody/mine"), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": ".."}, "expected the name of a module, got '..'; write the class as module:Class"),
        ({"module": "gone"}, "expected a module that can be imported, got gone; install its package"),
        ({"class": "Yours"}, "expected a class Yours in somebodys_models, got none; check the name"),
        (
            {"module": "json", "class": "JSONDecoder"},
            "expected a subclass of ancestral.Model, got json:JSOND",
        ),
        ({"module": None}, "expected a model of ancestral in .*, got Mine"),
    ],
)
def test_what_is_no_model_of_ones_own(own, changes, message):
    _, folder = own
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | changes))
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_torn_and_missing_files_are_errors(tmp_path, name):
    small().save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=name):
        GatedPixelCNN.from_pretrained(tmp_path / "model")
    file.unlink()
    with pytest.raises(UserError, match=name):
        GatedPixelCNN.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["./nothing/here", "/nothing", "~/nothing", "one", "a/b/c"])
def test_what_is_no_folder_and_no_hub_name(name, monkeypatch):
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="expected a run directory or a Hub name OWNER/NAME, got"):
        hub.fetch(name)


def test_only_the_two_files_are_downloaded(tmp_path, monkeypatch):
    model = small()
    model.save_pretrained(tmp_path / "model")
    asked = []
    monkeypatch.setattr(
        hub,
        "snapshot_download",
        lambda name, **options: asked.append((name, options)) or str(tmp_path / "model"),
    )
    same(GatedPixelCNN.from_pretrained("somebody/pixels"), model)
    assert asked == [("somebody/pixels", {"allow_patterns": ["config.json", "model.safetensors"]})]


# A server that speaks enough of the Hub


class Hub(BaseHTTPRequestHandler):
    """Repositories as dictionaries of files. Refuses those of ``stranger``."""

    repositories: dict[str, dict[str, bytes]]
    private: set[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.startswith("stranger/"):
                return self.answer(403, {"error": "Forbidden"}, X_Error_Message="You have no rights here")
            if name in self.repositories:
                return self.answer(409, {"url": self.base + name}, X_Error_Code="RepoExists")
            self.repositories[name] = {}
            if asked.get("private") or asked.get("visibility") == "private":
                self.private.add(name)
            return self.answer(200, {"url": self.base + name, "name": name, "id": "1"})
        if parts[-2:] == ["preupload", "main"]:
            files = json.loads(body)["files"]
            return self.answer(
                200,
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                    ]
                },
            )
        if parts[-2:] == ["commit", "main"]:
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(
                        line["value"]["content"]
                    )
            return self.answer(
                200,
                {
                    "commitUrl": f"{self.base}{name}/commit/{'a' * 40}",
                    "commitOid": "a" * 40,
                    "pullRequestUrl": None,
                },
            )
        return self.answer(404, {"error": self.path})

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if parts[0] == "api" and "tree" in parts:
            return self.answer(
                200, [{"type": "file", "path": k, "size": len(v), "oid": "b" * 40} for k, v in files.items()]
            )
        if parts[0] == "api":
            return self.answer(
                200, {"id": name, "sha": "a" * 40, "siblings": [{"rfilename": file} for file in files]}
            )
        if parts[2] == "resolve" and parts[4] in files:
            # A link of its own for the etag, as the Hub gives.
            return self.answer(
                200, files[parts[4]], ETag=f'"{hash(files[parts[4]]) & 0xFFFFFF}"', X_Repo_Commit="a" * 40
            )
        return self.answer(404, {"error": self.path}, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


@pytest.fixture
def server():
    handler = type("Handler", (Hub,), {"repositories": {}, "private": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.base = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


def environment(endpoint, home):
    return os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_x",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }


def command(arguments, endpoint, home):
    code = "from ancestral.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(endpoint, home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_pushed_and_loaded_through_the_command_line(server, tmp_path):
    small().save_pretrained(tmp_path / "model")
    pushed = command(
        ["push", str(tmp_path / "model"), "me/pixels", "--private"], server.base, tmp_path / "home"
    )
    assert pushed.returncode == 0, pushed.stderr
    assert f"{server.base}me/pixels" in pushed.stdout
    assert server.repositories["me/pixels"] == {
        p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()
    }
    assert server.private == {"me/pixels"}
    server.repositories["me/pixels"]["evil.py"] = b"raise SystemExit"
    sampled = command(
        ["sample", "me/pixels", "--n", "2", "--format", "npz", "--device", "cpu", "--out", str(tmp_path)],
        server.base,
        tmp_path / "home",
    )
    assert sampled.returncode == 0, sampled.stderr
    assert list(tmp_path.glob("*.npz"))
    assert not list((tmp_path / "home").rglob("evil.py"))


@pytest.fixture
def api(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=server.base.rstrip("/"), token="hf_x")


def test_pushing_twice_replaces(server, api, tmp_path):
    model = small()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "secret.txt").write_text("not mine to give")
    address = hub.push(tmp_path / "model", "me/pixels", api=api)
    assert "me/pixels" in address
    assert sorted(server.repositories["me/pixels"]) == ["config.json", "model.safetensors"]
    with torch.no_grad():
        model.first_vertical.bias.add_(1)
    model.save_pretrained(tmp_path / "model")
    hub.push(tmp_path / "model", "me/pixels", api=api)
    assert (
        server.repositories["me/pixels"]["model.safetensors"]
        == (tmp_path / "model" / "model.safetensors").read_bytes()
    )


def test_a_repository_of_somebody_else(api, tmp_path):
    small().save_pretrained(tmp_path / "model")
    refused = "expected to upload to stranger/pixels, got status 403 from the Hub; log in with: hf auth login"
    with pytest.raises(UserError, match=refused):
        hub.push(tmp_path / "model", "stranger/pixels", api=api)


def test_a_name_that_is_none(api, tmp_path):
    small().save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="expected a Hub name OWNER/NAME, got a b"):
        hub.push(tmp_path / "model", "a b", api=api)


# Port 1 of this machine answers nobody.
NOBODY = "http://127.0.0.1:1"


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    small().save_pretrained(tmp_path / "model")
    message = (
        f"expected to reach the Hugging Face Hub at {NOBODY}, got ConnectError: .*; check the connection"
    )
    with pytest.raises(UserError, match=message):
        hub.push(tmp_path / "model", "me/pixels", api=HfApi(endpoint=NOBODY, token="hf_x"))


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (NOBODY, "expected to reach the Hugging Face Hub at"),
        (None, "got me/nothing which is neither (RepositoryNotFoundError); check the name"),
    ],
)
def test_the_command_line_says_in_one_line_what_the_hub_lacks(server, tmp_path, endpoint, message):
    done = command(["sample", "me/nothing"], endpoint or server.base, tmp_path / "home")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("name", ["vae", "vqvae2", "biggan"])
def test_the_layout_is_the_hubs(name, tmp_path, monkeypatch):
    """push_to_hub hands over a folder that from_pretrained reads, and leaves nothing behind."""
    model = build(name)
    seen = []

    def push(folder, name, **options):
        same(type(model).from_pretrained(folder), model)
        seen.append((Path(folder), name, options))
        return "address"

    monkeypatch.setattr(hub, "push", push)
    assert model.push_to_hub("me/model", token="t", private=True) == "address"
    ((folder, pushed, options),) = seen
    assert (pushed, options) == ("me/model", {"token": "t", "private": True})
    assert not folder.exists()
