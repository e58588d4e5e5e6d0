"""Nothing is lost and nothing damaged is trained on: checkpoints, caches, locks, kills at every write."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ancestral
from ancestral import files
from ancestral.cli import main as commands
from ancestral.errors import UserError
from ancestral.runs import Run
from ancestral.training import Diverged, TrainingOptions, train
from ancestral.training.interruption import alone

OPTIONS = TrainingOptions(device="cpu", checkpoint_every=2, evaluate_every=0, sample_every=0, log_every=3)
TINY = {
    "quantizer": {"codebook_size": 8, "dim": 4},
    "stride": 2,
    "width": 8,
    "blocks": 1,
    "residual_width": 4,
    "components": 2,
    "prior": {"width": 8, "layers": 1, "head": 8},
}
STEPS = {"tokenizer": 6, "prior": 5}


def tiny(out, *, options=OPTIONS, steps=STEPS, **kwargs):
    stages = {name: {"steps": n, "batch_size": 16, "warmup": 2, "ema": 0.9} for name, n in steps.items()}
    return train("vqvae", data="digits", out=out, config=TINY, stages=stages, options=options, **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete run that nothing disturbed."""
    return tiny(tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def entries(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "steps_per_second")} for line in lines]


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def last_checkpoint(run):
    return run / "checkpoints" / "prior" / "step-00000005"


# Checkpoints


@pytest.mark.parametrize("place", [0.01, 0.5, 0.999])
@pytest.mark.parametrize(
    "name", ["state.json", "model.safetensors", "averages.safetensors", "optimizer-prior.safetensors"]
)
def test_a_flipped_byte_of_a_checkpoint_falls_back_to_the_one_before(whole, copy, capsys, name, place):
    flip(last_checkpoint(copy) / name, place)
    tiny(copy)
    assert "skipped a torn checkpoint" in capsys.readouterr().out
    assert weights(copy) == weights(whole)
    assert entries(copy) == entries(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 1_000_000_000},
        {"step": -1},
        {"stage": "tokenizer"},
        {"files": {}},
        {"seconds": float("nan")},
        {"sums": []},
    ],
)
def test_a_state_that_was_edited_counts_as_damaged(whole, copy, change):
    file = last_checkpoint(copy) / "state.json"
    written = json.loads(file.read_text())
    written["state"] |= change
    file.write_text(json.dumps(written))
    tiny(copy)
    assert weights(copy) == weights(whole)
    assert last_checkpoint(copy).with_name("torn-step-00000005").is_dir()


@pytest.mark.parametrize("name", ["state.json", "model.safetensors"])
def test_a_checkpoint_that_may_not_be_read_is_no_damage(copy, monkeypatch, name):
    hidden = last_checkpoint(copy) / name
    opened = Path.open

    def refuse(path, *arguments, **options):
        if path == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        UserError, match=rf"expected to read \S+{name}, got: Permission denied; check who may read it"
    ):
        tiny(copy)
    assert last_checkpoint(copy).is_dir()
    assert not list(copy.rglob("torn-*"))


def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        run = tiny(tmp_path / "run", steps={"tokenizer": 1, "prior": 1}).path
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*.safetensors")}
    assert set(modes.values()) == {0o640}, modes


# The model and what is cached


@pytest.mark.parametrize("place", [0.2, 0.9])
def test_a_flipped_byte_of_the_weights_is_found_and_the_same_command_mends_it(whole, copy, place):
    flip(copy / "model" / "model.safetensors", place)
    with pytest.raises(
        UserError, match="as its configuration says, got another content; restore it; of a run, give its"
    ):
        ancestral.load(copy)
    tiny(copy)
    assert weights(copy) == weights(whole)
    ancestral.load(copy)


def renamed(file):
    about = file.with_name("about.json")
    about.write_text(about.read_text().replace("train.x", "train.y"))
    file.rename(file.with_name("train.y.bin"))


def of_another_type(file):
    about = file.with_name("about.json")
    about.write_text(about.read_text().replace("uint8", "int8"))


@pytest.mark.parametrize(
    "damage",
    [
        renamed,
        of_another_type,
        flip,
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-16]),
        lambda file: flip(file.with_name("about.json")),
        lambda file: file.with_name("about.json").unlink(),
        lambda file: file.with_name("about.json").write_text("{}"),
        lambda file: shutil.rmtree(file.parent),
    ],
)
def test_damaged_codes_are_made_again(whole, copy, damage):
    for step in (4, 5):
        shutil.rmtree(copy / "checkpoints" / "prior" / f"step-{step:08d}")
    codes = copy / "codes" / "prior"
    before = {file.name: file.read_bytes() for file in codes.iterdir()}
    damage(codes / "train.x.bin")
    tiny(copy)
    assert weights(copy) == weights(whole)
    assert {file.name: file.read_bytes() for file in codes.iterdir()} == before


@pytest.mark.parametrize(
    "line",
    ["not json", '["a", "list"]', '{"step": 3}', '{"stage": "prior", "step": "x"}', "[" * 100_000, "3"],
)
def test_a_bad_line_of_the_log_blocks_nothing(whole, copy, line):
    shutil.rmtree(last_checkpoint(copy))
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    tiny(copy)
    assert entries(copy) == entries(whole)


def test_an_entry_of_the_log_over_a_resume_has_the_same_mean(whole, copy):
    """Entries every 3 steps, checkpoints every 2: the process before did an entry's first step."""
    shutil.rmtree(last_checkpoint(copy))  # goes on after step 4, in the middle of the entry of steps 4 and 5
    tiny(copy)
    assert entries(copy) == entries(whole)


# Diverging


def test_statistics_that_are_not_finite_end_the_training(tmp_path, capsys):
    line = "train vae --data digits --model.architecture.width 16 --model.latents 8 --training.steps 30 "
    line += (
        f"--training.batch-size 32 --training.warmup 0 --training.learning-rate 1e6 --out {tmp_path / 'run'}"
    )
    assert commands.run(line.split()) == 2
    output, errors = capsys.readouterr()
    assert "complete" not in output
    assert "expected finite numbers, got NaN or inf in stage training, step" in errors
    assert "checkpoint is kept" not in errors, "there is none"
    assert not (tmp_path / "run" / "model").exists()


def test_a_buffer_that_is_not_finite_is_named(tmp_path):
    from test_phases import Hierarchy

    class Overflowing(Hierarchy):
        def loss(self, batch, phase, progress):
            loss = super().loss(batch, phase, progress)
            self.tokenizer[1].running_var.data.fill_(float("inf"))
            return loss

    with pytest.raises(
        Diverged, match=r"stage tokenizer, step 2, tensor tokenizer\.1\.running_var; try a lower"
    ):
        train(Overflowing, data="digits", out=tmp_path / "run", options=OPTIONS)


def test_validation_that_is_not_finite_ends_the_training(tmp_path):
    from test_phases import Hierarchy

    class Overflowing(Hierarchy):
        def loss(self, batch, phase, progress):
            loss = super().loss(batch, phase, progress)
            return loss if self.training else ancestral.Loss(loss.total * float("nan"))

    with pytest.raises(
        Diverged, match="stage tokenizer, step 3, validation, term loss; the last good checkpoint is kept"
    ):
        train(Overflowing, data="digits", out=tmp_path / "run", options=OPTIONS)


# Alone, and leaving things as they were


def test_the_description_of_a_run_is_written_under_the_lock(tmp_path):
    """Two commands at once left the weights of one under the description of the other."""
    run = tmp_path / "run"
    with alone(run), pytest.raises(UserError, match="got another process that trains there"):
        tiny(run)
    assert not (run / "run.json").exists()


def test_a_complete_run_is_only_read(copy):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [copy, *copy.rglob("*")]}
    with alone(copy):  # nobody needs the lock to read
        tiny(copy)
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [copy, *copy.rglob("*")]}
    assert {p: v for p, v in after.items() if p.name != ".lock"} == {
        p: v for p, v in before.items() if p.name != ".lock"
    }


def test_training_and_loading_leave_the_callers_process_as_it_was(whole, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.backends.cudnn.deterministic = False
    torch.manual_seed(11)
    tiny(tmp_path / "run", steps={"tokenizer": 1, "prior": 1})
    ancestral.load(whole)
    assert torch.equal(torch.rand(3), expected)
    assert torch.backends.cudnn.deterministic is False


def test_another_number_of_threads_is_recorded_and_said(copy, capsys):
    manifest = json.loads((copy / "run.json").read_text())
    assert manifest["threads"] == torch.get_num_threads()
    (copy / "run.json").write_text(json.dumps(manifest | {"threads": 64}))
    shutil.rmtree(last_checkpoint(copy))
    tiny(copy)
    assert f"going on with 64 threads there, {torch.get_num_threads()} here" in capsys.readouterr().out


def test_checkpoints_by_the_clock(tmp_path):
    options = replace(OPTIONS, checkpoint_every=0, checkpoint_minutes=1e-9, keep=9)
    run = tiny(tmp_path / "run", options=options, steps={"tokenizer": 3, "prior": 1}).path
    found = sorted(path.name for path in (run / "checkpoints" / "tokenizer").iterdir())
    assert found == ["step-00000001", "step-00000002", "step-00000003"]


def test_workers_do_not_outlive_their_launcher(tmp_path):
    """torchrun that is killed cannot stop its workers: they are told by the system, and save."""
    told = tmp_path / "told"
    worker = f"""
import pathlib, signal, sys, time
from ancestral.training.fabric import end_with_launcher
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(told)!r}).touch(), sys.exit()))
end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    launcher = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert launcher.stdout.readline() == b"ready\n"
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 20
    while not told.exists():
        assert time.monotonic() < deadline, "the worker was not told"
        time.sleep(0.01)


# Killed anywhere


def dead_process():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(copy):
    dead, alive = copy / f".x.{dead_process()}.tmp", copy / "samples" / f".y.{os.getppid()}.tmp"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "part").touch()
    shutil.rmtree(last_checkpoint(copy))
    tiny(copy)
    assert not dead.exists()
    assert (alive / "part").exists()


def test_a_folder_that_holds_a_leftover_alone_is_free(tmp_path):
    run = tmp_path / "run"
    (run / f".run.json.{dead_process()}.tmp").mkdir(parents=True)
    (run / ".lock").touch()
    assert Run.check(run, {}) is None
    (run / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds something else"):
        Run.check(run, {})


class Killed(BaseException):
    """What stands for kill -9 at a write point."""


POINTS = {"fsync": os, "replace": Path, "mkdir": Path, "rename": Path, "touch": Path, "unlink": Path}


def killed_at(monkeypatch, number, work):
    """Whether ``work``, in a process that is killed before or after its write point of this number, was."""
    pid = os.fork()
    if pid == 0:
        count = [0]

        def watched(function):
            def call(*arguments, **options):
                count[0] += 1
                if count[0] == number:
                    os._exit(77)
                result = function(*arguments, **options)
                count[0] += 1
                if count[0] == number:
                    os._exit(77)
                return result

            return call

        for name, holder in POINTS.items():
            setattr(holder, name, watched(getattr(holder, name)))
        status = 1
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 77), f"point {number}: exit status {code}"
    return code == 77


def stray(folder):
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


STRIDE = int(os.environ.get("ANCESTRAL_KILLS", "41"))
"""Every so many write points of a training are tried; 1 tries them all."""


def test_a_training_killed_at_any_write_ends_with_the_same_weights(whole, tmp_path, monkeypatch):
    number, points = 1, 0
    while True:
        out = tmp_path / f"run{number}"
        if not killed_at(monkeypatch, number, lambda out=out: tiny(out)):
            break
        points += 1
        tiny(out)
        assert weights(out) == weights(whole), f"killed at write point {number}"
        assert entries(out) == entries(whole), f"killed at write point {number}"
        assert not stray(out), f"killed at write point {number}: {stray(out)}"
        ancestral.load(out)
        shutil.rmtree(out)
        number += STRIDE
    assert points >= 5


@pytest.mark.parametrize(
    "line",
    [
        "sample RUN --n 2 --out OUT --format files",
        "sample RUN --n 2 --out OUT",
        "report RUN",
        "tokenize RUN --out OUT/codes.npy",
        "tokenize RUN --out OUT/codes.safetensors --split test",
    ],
)
def test_a_command_killed_at_any_write_can_be_given_again(copy, tmp_path, monkeypatch, line):
    def work(out):
        words = [w.replace("RUN", str(copy)).replace("OUT", str(out)) for w in line.split()]
        if words[0] == "tokenize" and Path(words[3]).exists():
            return  # killed when the file stood there whole: it is left alone
        assert commands.run(words) == 0

    number = 1
    reference = tmp_path / "reference"
    work(reference)

    def content(path):  # of safetensors the names of the metadata come in any order
        if path.suffix == ".safetensors":
            return {name: tensor.tolist() for name, tensor in load_file(path).items()}
        return path.read_bytes()

    expected = {p.relative_to(reference): content(p) for p in reference.rglob("*") if p.is_file()}
    while killed_at(monkeypatch, number, lambda: work(tmp_path / "out")):
        out = tmp_path / "out"
        work(out)  # here, where nothing is copied for another process
        written = [p for p in out.rglob("*") if p.is_file() and ".tmp" not in str(p)]
        found = {p.relative_to(out): content(p) for p in written}
        assert found == expected, f"killed at write point {number}"
        assert (copy / "report.html").is_file() or "report" not in line
        shutil.rmtree(out, ignore_errors=True)
        number += 1
    assert number > 4


def test_nothing_that_replaces_leaves_a_trace_when_it_fails(tmp_path):
    def fail():
        with files.replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())
    with files.replacing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert time.time() > (tmp_path / "file").stat().st_mtime - 60
