"""The loop: stages, the phases inside a step, and exact resume. It knows no family."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ancestral.data import Dataset, ImageOptions, augment
from ancestral.data.sheets import sheet, side_by_side, write_png
from ancestral.errors import UserError
from ancestral.files import read_tensors, write_tensors
from ancestral.model import Batch, Model, Phase, Reconstructs, Stage
from ancestral.recipe import Optimization
from ancestral.training import checkpoints
from ancestral.training.averaging import Average
from ancestral.training.batches import Batches
from ancestral.training.checkpoints import Checkpoint
from ancestral.training.fabric import build_fabric, can_compile
from ancestral.training.journal import Journal
from ancestral.training.optimizers import build_optimizer, learning_rate
from ancestral.training.options import TrainingOptions
from ancestral.training.randomness import derive, seed_step
from ancestral.training.work import PhaseLoss, Work

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

_CHECK_EVERY = 25
"""Steps between looks at the losses on a device that runs ahead of the host."""
_AGREE_EVERY = 10
"""Steps between agreements of several processes to stop."""
_VALIDATION_EXAMPLES = 4096
_PREPARE_BATCH = 256
_PICTURES = 64
_MOST_COLUMNS = 16


class Interrupted(Exception):
    """The training was asked to stop (Ctrl-C, SIGTERM), saved, and can go on."""

    def __init__(self, stage: str, step: int, number: int) -> None:
        self.stage, self.step, self.signal = stage, step, number
        super().__init__(f"stopped in stage {stage} after step {step}; saved")


class Trainer:
    """Trains ``model`` in the run directory ``path``: from the start, or from where the last process left off.

    Args:
        model: the model, freshly built.
        data: train, validation and test examples.
        stages: how each stage is optimized, by name.
        images: augmentation of the training examples.
        options: how the training runs.
        path: the run directory.
        begin: name of the first stage; the ones before it count as done (the model has their weights).
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        stages: Mapping[str, Optimization],
        *,
        images: ImageOptions,
        options: TrainingOptions,
        path: Path,
        begin: str | None = None,
    ) -> None:
        self.model, self.data, self.optimizations = model, data, stages
        self.images, self.options, self.path = images, options, path
        self.stages = model.stages()
        names = [stage.name for stage in self.stages]
        self.first = names.index(begin) if begin else 0
        if options.precision == "64-true":
            model.double()  # before a checkpoint is loaded, which would lose half its digits
        self.fabric = build_fabric(
            options, unused_parameters=any(len(stage.phases) > 1 for stage in self.stages)
        )
        self._check()
        self.journal: Journal | None = None
        self._stopped_by: int | None = None
        self._seconds = 0.0

    def fit(self) -> None:
        """Run every stage that is left.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came; everything is saved.
            Diverged: the loss is not finite any more.
        """
        with self._alone():
            self._fit()

    def _fit(self) -> None:
        folder = self.path / "checkpoints"
        if self._leads:
            checkpoints.clean(folder)
        self.fabric.barrier()
        position, checkpoint, torn = self._find(folder)
        self.fabric.barrier()  # all processes have read what one of them moves now
        for path in torn if self._leads else ():
            print(f"skipped a torn checkpoint, kept as {checkpoints.set_aside(path)}", flush=True)
        if torn and checkpoint is None and self._leads:
            print("no whole checkpoint is left: the training starts over", flush=True)
        if checkpoint is not None:
            self.model.load_weights(checkpoint.weights, str(folder))
            self._seconds = checkpoint.seconds
            if self._leads and (torn or checkpoint.step < self.optimizations[checkpoint.stage].steps):
                print(f"going on with stage {checkpoint.stage} after step {checkpoint.step}", flush=True)
        with self._journal(), self._signals():
            for index in range(position, len(self.stages)):
                self._run_stage(index, checkpoint if index == position else None)

    def _check(self) -> None:
        """Raise UserError if the batches of a stage cannot be had."""
        examples, processes = len(self.data.train), self.fabric.world_size
        if large := {name: o.batch_size for name, o in self.optimizations.items() if o.batch_size > examples}:
            problem = f"expected a batch no larger than the {examples} training examples, got {' and '.join(map(str, large.values()))}"
            raise UserError(problem, f"lower {' and '.join(f'--{name}.batch-size' for name in large)}")
        for name, o in self.optimizations.items():
            if o.batch_size % (processes * o.accumulate):
                problem = f"expected a batch size that {processes} processes x {o.accumulate} parts divide, got {o.batch_size}"
                raise UserError(problem, f"change --{name}.batch-size")

    @property
    def _leads(self) -> bool:
        return self.fabric.is_global_zero

    def _find(self, folder: Path) -> tuple[int, Checkpoint | None, list[Path]]:
        """The stage to go on with, its checkpoint, and the newer checkpoints that are torn: what the first process finds."""
        index, checkpoint, skipped = self.first, None, list[Path]()
        for candidate in reversed(range(self.first, len(self.stages))) if self._leads else ():
            checkpoint, torn = checkpoints.latest(folder, self.stages[candidate].name)
            skipped += torn
            if checkpoint is not None:
                index = candidate
                break
        index, step = self.fabric.broadcast((index, checkpoint.step if checkpoint else None))
        if step is not None and not self._leads:
            checkpoint = checkpoints.read(checkpoints.place(folder, self.stages[index].name, step))
        return index, checkpoint, skipped

    def _run_stage(self, index: int, checkpoint: Checkpoint | None) -> None:
        """Run what is left of a stage."""
        stage = self.stages[index]
        steps = self.optimizations[stage.name].steps
        start = checkpoint.step if checkpoint else 0
        if start >= steps:
            return
        if self._leads and checkpoint is None:
            for later in self.stages[
                index + (stage.prepare is None) :
            ]:  # of weights that are about to change
                (self.path / "codes" / f"{later.name}.safetensors").unlink(missing_ok=True)
        work = self._begin(stage, checkpoint)
        if self.journal:
            self.journal.rewind(stage.name, start)
            self.journal.begin_stage(stage.name, start, steps)
        self.model.train()
        work.clock = time.perf_counter()
        for step in range(start, steps):
            self._step(work, step)
            done = step + 1
            due = _due(done, steps)
            if work.device.type == "cpu" or len(work.pending) >= _CHECK_EVERY or due(self.options.log_every):
                work.check_losses()
            if due(self.options.log_every):
                self._log(work, done)
            if done == steps and work.average is not None:
                work.average.replace_weights()
            stop = self._should_stop(done, last=done == steps)
            if due(self.options.evaluate_every) or due(self.options.sample_every):
                self._look(work, done, due)
            # The checkpoint comes last: a process killed before it repeats what a step brings with it, one killed after it lacks nothing.
            if due(self.options.checkpoint_every) or stop:
                self._save(work, done)
            if stop and (done < steps or index + 1 < len(self.stages)):
                assert self._stopped_by is not None
                raise Interrupted(stage.name, done, self._stopped_by)
        work.batches.close()
        if self.journal:
            self.journal.end_stage()

    def _begin(self, stage: Stage, checkpoint: Checkpoint | None) -> Work:
        """Everything that the steps of a stage need, as it was at the checkpoint."""
        optimization, device = self.optimizations[stage.name], self.fabric.device
        trained = {id(p) for phase in stage.phases for p in phase.parameters}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in trained)
        self.model.to(device)
        if self.options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train, validation = self._prepare(stage)
        batches = Batches(
            train,
            optimization.batch_size,
            seed=self.options.seed,
            stage=stage.name,
            device=device,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            augment=None if stage.prepare else self._augmentation(),
        )
        loss: nn.Module = PhaseLoss(self.model)
        if optimization.compile:
            compiles = can_compile(device)
            if self._leads and compiles:
                print(f"compiling the step of stage {stage.name}: the first one takes a minute", flush=True)
            elif self._leads:
                print(
                    f"not compiling the step of stage {stage.name}, so slower: there is no C++ compiler (g++ or clang++)",
                    flush=True,
                )
            # Automatic dynamic shapes break in the CPU backend, and shapes never change here.
            loss = torch.compile(loss, dynamic=False) if compiles else loss  # type: ignore[assignment]
        work = Work(
            stage=stage,
            optimization=optimization,
            device=device,
            batches=batches,
            validation=validation,
            module=self.fabric.setup_module(loss),
            optimizers={
                p.name: self.fabric.setup_optimizers(build_optimizer(p.parameters, optimization))
                for p in stage.phases
            },
            average=Average(self.model, optimization.ema) if optimization.ema is not None else None,
        )
        if checkpoint is not None:
            for name, optimizer in work.optimizers.items():
                checkpoints.restore_optimizer(optimizer.optimizer, checkpoint.optimizers[name])
            if work.average is not None:
                work.average.load(checkpoint.averages)
        return work

    def _step(self, work: Work, step: int) -> None:
        """One step: the phases in turn, each as often as it says, each time with a batch of its own."""
        stage = work.stage
        seed_step(work.device, self.options.seed, stage.name, step, self.fabric.global_rank)
        rate = learning_rate(work.optimization, step)
        draw = step * sum(phase.repeat for phase in stage.phases)
        for phase in stage.phases:
            for repeat in range(phase.repeat if step % phase.every == 0 else 0):
                total, terms = self._update(work, phase, work.batches[draw + repeat], rate)
                work.count(phase, step, total, terms)
            draw += phase.repeat
        work.steps += 1
        if work.average is not None:
            work.average.update(step)

    def _update(
        self, work: Work, phase: Phase, batch: Batch, rate: float
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """One update of a phase: the loss before it and its terms, means over the accumulated parts."""
        optimization, optimizer = work.optimization, work.optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        if len(work.stage.phases) > 1:
            active = {id(p) for p in phase.parameters}
            for other in work.stage.phases:
                for p in other.parameters:
                    p.requires_grad_(id(p) in active)
        if optimization.accumulate == 1:
            total, terms = work.module(batch.x, batch.labels, batch.context, phase.name)
            self.fabric.backward(total)
            total = total.detach()
        else:
            total, terms = self._accumulate(work.module, phase, batch, optimization.accumulate)
        if work.device.type == "cpu" and not math.isfinite(total.item()):
            return total, terms  # the weights stay as they are; the loop stops
        if optimization.gradient_clip is not None:
            self.fabric.clip_gradients(
                work.module, optimizer, max_norm=optimization.gradient_clip, error_if_nonfinite=False
            )
        optimizer.step()
        optimizer.zero_grad()
        return total, terms

    def _log(self, work: Work, done: int) -> None:
        """Means since the last entry."""
        now = time.perf_counter()
        elapsed, work.clock = now - work.clock, now  # the time that logging takes belongs to the next entry
        self._seconds += elapsed
        stacked = torch.stack([value / n for value, n in work.sums.values()])
        if self.fabric.world_size > 1:
            dist.all_reduce(stacked)
            stacked = stacked / self.fabric.world_size
        if self.journal:
            means = dict(zip(work.sums, stacked.tolist(), strict=True))
            extra = {
                "learning_rate": learning_rate(work.optimization, done - 1),
                "steps_per_second": work.steps / elapsed,
                "seconds": self._seconds,
            }
            self.journal.write(work.stage.name, done, "train", means | extra, steps=work.optimization.steps)
        work.sums, work.steps = {}, 0

    def _look(self, work: Work, done: int, due: Callable[[int], bool]) -> None:
        """Evaluate and draw with the averaged weights."""
        with (
            work.average.in_place()
            if work.average is not None and done < work.optimization.steps
            else nullcontext()
        ):
            if due(self.options.evaluate_every):
                self._evaluate(work, done)
            if due(self.options.sample_every):
                self._draw(work.stage, done)
        self.model.train()
        work.clock = time.perf_counter()

    def _save(self, work: Work, done: int) -> None:
        """A checkpoint, and at the end of a stage the model; only of finite weights."""
        work.check_losses()
        if self._leads:
            work.check_weights(done)
            last = done == work.optimization.steps
            if last:
                names = [stage.name for stage in self.stages]
                self.model.trained = tuple(names[: names.index(work.stage.name) + 1])
                self.model.eval().save_pretrained(self.path / "model")
                self.model.train()
            optimizers = {
                name: checkpoints.flatten_optimizer(optimizer.optimizer)
                for name, optimizer in work.optimizers.items()
            }
            averages = work.average.values if work.average is not None and not last else {}
            state = Checkpoint(
                work.stage.name, done, self.model.state_dict(), optimizers, averages, self._seconds
            )
            checkpoints.save(self.path / "checkpoints", state, self.options.keep)
        self.fabric.barrier()

    def _accumulate(
        self, module: Any, phase: Phase, batch: Batch, parts: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, sums = torch.zeros((), device=self.fabric.device), dict[str, Tensor]()
        size = len(batch) // parts
        for i in range(parts):
            part = _part(batch, i * size, (i + 1) * size, self.fabric.device)
            with self.fabric.no_backward_sync(module, enabled=i + 1 < parts):
                loss, terms = module(part.x, part.labels, part.context, phase.name)
                self.fabric.backward(loss / parts)
            total = total + loss.detach() / parts
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / parts
        return total, sums

    def _augmentation(self) -> Callable[[Tensor, torch.Generator], Tensor] | None:
        if not (self.images.flip or self.images.shift):
            return None
        return lambda x, generator: augment(x, self.images, generator)

    def _prepare(self, stage: Stage) -> tuple[Batch, Batch]:
        """Training and validation examples of the stage; what it prepares is computed once and kept in ``codes/``."""
        splits = {
            name: Batch(split.x, split.labels)
            for name, split in (("train", self.data.train), ("validation", self.data.validation))
        }
        if stage.prepare is None:
            return splits["train"], splits["validation"]
        file = self.path / "codes" / f"{stage.name}.safetensors"
        if self._leads and not file.exists():
            print(f"preparing the data of stage {stage.name}", flush=True)
            self.model.eval()
            prepared = {
                name: transform(batch, stage.prepare, self.fabric.device) for name, batch in splits.items()
            }
            write_tensors(
                file,
                {
                    f"{name}.{key}": t
                    for name, batch in prepared.items()
                    for key, t in batch.tensors().items()
                },
            )
        self.fabric.barrier()
        tensors = read_tensors(file)
        train, validation = (
            Batch(**{key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(f"{name}.")})
            for name in ("train", "validation")
        )
        return train, validation

    @torch.no_grad()
    def _evaluate(self, work: Work, step: int) -> None:
        """Means of the loss and its terms over (the first of) the validation split, with the same noise each time."""
        seen = min(len(work.validation), _VALIDATION_EXAMPLES)
        if self.journal is None or not seen:
            return
        self.model.eval()
        sums: dict[str, float] = {}
        seed_step(work.device, self.options.seed, work.stage.name, "validation")
        size = work.optimization.batch_size
        for phase in work.stage.phases:
            for start in range(0, seen, size):
                batch = _part(work.validation, start, min(start + size, seen), work.device)
                with self.fabric.autocast():
                    loss = self.model.loss(batch, phase.name)
                for name, value in {"loss": loss.total, **loss.terms}.items():
                    key = work.term(phase, name)
                    sums[key] = sums.get(key, 0.0) + float(value) * len(batch)
        means = {name: value / seen for name, value in sums.items()}
        self.journal.write(work.stage.name, step, "validation", means, steps=work.optimization.steps)

    @torch.no_grad()
    def _draw(self, stage: Stage, step: int) -> None:
        """Sheets of samples, and of originals above their reconstructions."""
        if self.journal is None:
            return
        device = self.fabric.device
        self.model.eval()
        pictures = {}
        if stage.samples:
            generator = torch.Generator(device).manual_seed(derive(self.options.seed, "pictures"))
            classes = self.model.sample_classes
            columns = classes if 1 < classes <= _MOST_COLUMNS else 8
            n = _PICTURES // columns * columns
            labels = (
                torch.arange(n, device=device) % columns if classes >= columns else None
            )  # a column for each class
            pictures["step"] = sheet(
                self.model.sample(n, labels, generator=generator), self.model.spec, columns=columns
            )
        if isinstance(self.model, Reconstructs) and stage.prepare is None:
            originals = self.data.validation.x[:32].to(device)
            pictures["reconstructions"] = side_by_side(
                self.model.spec, originals, self.model.reconstruct(originals)
            )
        for name, picture in pictures.items():
            write_png(self.path / "samples" / f"{stage.name}-{name}-{step:06d}.png", picture)
            self.journal.picture(name, step, picture)

    def _should_stop(self, done: int, last: bool) -> bool:
        """Whether all processes are to stop after this step."""
        if self.fabric.world_size == 1:
            return self._stopped_by is not None
        if done % _AGREE_EVERY and not last:
            return False
        number = self.fabric.all_reduce(
            torch.tensor(float(self._stopped_by or 0), device=self.fabric.device), reduce_op="max"
        )
        agreed = int(number)  # type: ignore[arg-type]
        self._stopped_by = (
            agreed or self._stopped_by
        )  # a signal that came meanwhile waits for the next agreement
        return bool(agreed)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second process of the same command out of the run directory."""
        if not self._leads or fcntl is None:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"expected to be alone in {self.path}, got another process that trains there",
                    "wait for it or stop it",
                ) from None
            yield

    @contextmanager
    def _journal(self) -> Iterator[None]:
        if not self._leads:
            yield
            return
        with Journal(self.path) as self.journal:
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the training after the step, saved; a second one ends it at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._stopped_by is not None:
                raise KeyboardInterrupt
            self._stopped_by = number

        try:
            before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@torch.no_grad()
def transform(batch: Batch, function: Callable[[Batch], Batch], device: torch.device) -> Batch:
    """``function`` of all examples, a part at a time; the result is in memory."""
    starts = range(0, len(batch), _PREPARE_BATCH)
    parts = [function(_part(batch, i, i + _PREPARE_BATCH, device)).map(lambda t: t.cpu()) for i in starts]
    return Batch(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})


def _part(batch: Batch, start: int, stop: int, device: torch.device) -> Batch:
    return batch.map(lambda t: t[start:stop].to(device))


def _due(done: int, steps: int) -> Callable[[int], bool]:
    """Whether something that happens every so many steps, and at the end of the stage, is due."""
    return lambda every: done == steps or (every > 0 and done % every == 0)
