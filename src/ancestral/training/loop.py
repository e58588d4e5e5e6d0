"""The loop: stages, the phases inside a step, and exact resume. It knows no family."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ancestral import media
from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.data import Dataset
from ancestral.errors import Interrupted, UserError
from ancestral.files import sweep
from ancestral.memory import keep_freed
from ancestral.model import Model, repeated_blocks
from ancestral.recipe import Optimization
from ancestral.stages import Phase, Progress, Stage, idle, initialize, owned
from ancestral.training import checkpoints, prepared, sheets
from ancestral.training.averaging import Average, Best, settle
from ancestral.training.batches import Batches
from ancestral.training.checkpoints import Checkpoint
from ancestral.training.fabric import build_fabric, can_compile
from ancestral.training.interruption import Signals, alone
from ancestral.training.journal import Journal
from ancestral.training.monitor import Monitor
from ancestral.training.optimizers import build_optimizer, learning_rate
from ancestral.training.options import TrainingOptions
from ancestral.training.placement import place
from ancestral.training.randomness import seed_step
from ancestral.training.recompute import recomputed
from ancestral.training.size import held
from ancestral.training.work import PhaseLoss, Work

if TYPE_CHECKING:
    from ancestral.training.sharding import Shards

_CHECK_EVERY = 25
"""Steps between looks at the losses on a device that runs ahead of the host."""
_AGREE_EVERY = 10
"""Steps between agreements of several processes to stop."""
_VALIDATION_EXAMPLES = 4096


class Trainer:
    """Trains ``model`` in the run directory ``path``, from the start or from where the last process left off.

    Args:
        model: the model, freshly built.
        data: train, validation and test examples.
        stages: how each stage that is to be trained is optimized, by name; the others count as they are (the
            model has their weights).
        options: how the training runs.
        path: the run directory.
        taken: names of stages that another run has trained.
        bases: runs that stages are taken from, which may have prepared the same data.
        monitor: what measures samples meanwhile.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset[Any],
        stages: Mapping[str, Optimization],
        *,
        options: TrainingOptions,
        path: Path,
        taken: Sequence[str] = (),
        bases: Sequence[Path] = (),
        monitor: Monitor | None = None,
    ) -> None:
        self.model, self.data, self.optimizations, self.monitor = model, data, stages, monitor
        self.options, self.path, self.taken, self.bases = options, path, tuple(taken), tuple(bases)
        self.stages = [stage for stage in model.stages() if stage.name in stages]
        self._absent = idle(model, model.stages(), [*stages, *self.taken])
        """By stage that is neither trained nor taken over: the names of its weights, which are not saved."""
        self._constants = {id(p) for p in model.parameters() if not p.requires_grad}
        self._infinite = {n for n, t in model.state_dict().items() if not bool(t.isfinite().all())}
        if options.precision == "64-true":
            model.double()  # before a checkpoint is loaded, which would lose half its digits
        alternate = any(len(stage.phases) > 1 for stage in self.stages)
        self.fabric = build_fabric(options, unused_parameters=alternate)
        self._check()
        self.journal: Journal | None = None
        self._signals = Signals()
        self._seconds = 0.0
        self._saved = time.monotonic()
        """When the last checkpoint was written."""
        self._averages: dict[str, Tensor] = {}
        """Averages that go on from one stage to the next."""

    def fit(self, describe: Callable[[], None] | None = None) -> None:
        """Run every stage that is left; a run that is complete is only read.

        Args:
            describe: called by the first process when no other one can write to the run directory any more.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or SIGHUP came; everything is saved.
            Diverged: a loss or a weight is not finite any more.
        """
        if self.fabric.broadcast(self._complete() if self._leads else False):
            if self._leads:
                sweep(self.path)
            return
        if self.fabric.device.type == "cpu":
            keep_freed()
        with alone(self.path) if self._leads else nullcontext(), self._undisturbed():
            if self._leads:
                if describe:
                    describe()
                sweep(self.path)
            self.fabric.barrier()
            self._fit()

    def _complete(self) -> bool:
        """Whether the last stage has been trained to its end and everything is whole."""
        if not self.stages:
            return self.model.is_saved(self.path / "model")
        last = self.stages[-1].name
        steps = self.optimizations[last].steps
        if not checkpoints.place(self.path / "checkpoints", last, steps).is_dir():
            return False
        checkpoint, damaged = checkpoints.latest(self.path / "checkpoints", last)
        whole = not damaged and checkpoint is not None and checkpoint.step >= steps
        return whole and self.model.is_saved(self.path / "model")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """The caller's random state and settings as they were, once the training has ended."""
        device = self.fabric.device
        devices = [device.index or 0] if device.type == "cuda" else []
        deterministic = torch.backends.cudnn.deterministic
        torch.backends.cudnn.deterministic = True  # a resumed run is to end with the same weights
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            torch.backends.cudnn.deterministic = deterministic

    def _fit(self) -> None:
        folder = self.path / "checkpoints"
        position, checkpoint, damaged = self._find(folder)
        self.fabric.barrier()  # all processes have read what one of them moves now
        for path in damaged if self._leads else ():
            print(f"skipped a torn checkpoint, kept as {checkpoints.set_aside(path)}", flush=True)
        if damaged and checkpoint is None and self._leads:
            print("no whole checkpoint is left: the training starts over", flush=True)
        if checkpoint is not None:
            self.model.load_weights(checkpoint.weights, str(folder), absent=self._left_out)
            self._seconds, self._averages = checkpoint.seconds, checkpoint.averages
            if self._leads and (damaged or checkpoint.step < self.optimizations[checkpoint.stage].steps):
                print(f"going on with stage {checkpoint.stage} after step {checkpoint.step}", flush=True)
        with self._journal(), self._signals.caught():
            for index in range(position, len(self.stages)):
                with recomputed(self._recomputed(self.stages[index])):
                    self._run_stage(index, checkpoint if index == position else None)
        settle(self.model, self._averages, set())
        self.model.eval()
        if self._leads and not self.model.is_saved(self.path / "model"):
            # Of a run that is complete but for this, or that takes over all stages.
            self.model.trained = self._trained(self.stages[-1] if self.stages else None)
            self.model.save_pretrained(self.path / "model", without=self._absent)

    def _recomputed(self, stage: Stage) -> tuple[nn.Module, ...]:
        """The blocks whose activations a stage does not keep."""
        if not self.optimizations[stage.name].recompute:
            return ()
        return repeated_blocks(self.model, stage.modules)

    def _check(self) -> None:
        """Raise UserError for batches that cannot be had, or where nothing can be recomputed or sharded."""
        for stage in self.stages:
            if self.optimizations[stage.name].keep_best and not len(self.data.validation):
                problem = f"expected examples to validate stage {stage.name} on, got none"
                raise UserError(problem, f"leave --{stage.name}.keep-best out")
            if self.optimizations[stage.name].keep_best and stage.measured:
                problem = f"expected a stage whose loss tells which weights are best, got {stage.name}"
                raise UserError(problem, f"leave --{stage.name}.keep-best out")
            if self.optimizations[stage.name].keep_best and self.is_sharded(stage):
                problem = (
                    f"expected a stage with whole weights to keep the best of, got {stage.name}, sharded"
                )
                raise UserError(problem, f"leave --{stage.name}.keep-best out, or choose --strategy ddp")
            if self.optimizations[stage.name].recompute and not self._recomputed(stage):
                name = type(self.model).__name__
                problem = f"expected a stage with blocks to recompute, got {stage.name} of {name}, without"
                raise UserError(problem, f"leave --{stage.name}.recompute out")
        if self.options.strategy == "fsdp" and self.stages and not any(map(self.is_sharded, self.stages)):
            got = ", ".join(stage.name for stage in self.stages)
            problem = f"expected a stage that can be sharded, got {got} of {type(self.model).__name__}"
            raise UserError(problem, "choose --strategy ddp")
        examples, processes = len(prepared.seen(self.data, "train", self.model)), self.fabric.world_size
        if large := {name: o.batch_size for name, o in self.optimizations.items() if o.batch_size > examples}:
            sizes = " and ".join(map(str, large.values()))
            problem = f"expected a batch no larger than the {examples} training examples, got {sizes}"
            raise UserError(problem, f"lower {' and '.join(f'--{name}.batch-size' for name in large)}")
        for name, o in self.optimizations.items():
            if o.batch_size % (processes * o.accumulate):
                parts = f"{processes} processes x {o.accumulate} parts"
                problem = f"expected a batch size that {parts} divide, got {o.batch_size}"
                raise UserError(problem, f"change --{name}.batch-size")

    @property
    def _leads(self) -> bool:
        return self.fabric.is_global_zero

    def _find(self, folder: Path) -> tuple[int, Checkpoint | None, list[Path]]:
        """The stage to go on with, its checkpoint, and newer torn ones, as the first process sees it."""
        index, checkpoint, skipped = 0, None, list[Path]()
        for candidate in reversed(range(len(self.stages))) if self._leads else ():
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
        work = self._begin(stage, checkpoint)
        if self.journal:
            self.journal.rewind(stage.name, start)
            self.journal.begin_stage(stage.name, start, steps)
        self._train_mode(stage)
        work.clock, self._saved = time.perf_counter(), time.monotonic()
        for step in range(start, steps):
            self._step(work, step)
            done = step + 1
            due = _due(done, steps)
            if work.device.type == "cpu" or len(work.pending) >= _CHECK_EVERY or due(self.options.log_every):
                work.check_losses()
            if due(self.options.log_every):
                self._log(work, done)
            stop, overdue = self._wanted(done, last=done == steps)
            if any(map(due, (self.options.evaluate_every, self.options.sample_every, self._measure_every))):
                self._look(work, done, due)
            # The checkpoint comes last: a process killed before it repeats what a step brings with it, one
            # killed after it lacks nothing.
            if due(self.options.checkpoint_every) or stop or overdue:
                self._save(work, done)
            if stop and (done < steps or index + 1 < len(self.stages)):
                assert self._signals.received is not None
                raise Interrupted(stage.name, done, self._signals.received)
        average = self._final(work)
        self._averages = average.values if average is not None else {}
        work.batches.close()
        if self.journal:
            self.journal.end_stage()
            if work.best is not None and 0 < work.best.step < steps:
                print(
                    f"kept the weights of step {work.best.step}, the best of stage {stage.name}", flush=True
                )

    def _begin(self, stage: Stage, checkpoint: Checkpoint | None) -> Work:
        """Everything that the steps of a stage need, as it was at the checkpoint."""
        optimization, device = self.optimizations[stage.name], self.fabric.device
        self._train_only(*stage.phases)
        resting = self.resting(stage)
        place(self.model, device, resting)
        if self.options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averages = settle(self.model, self._averages, owned(self.model, stage.modules))
        train, validation = prepared.examples(
            self.path, stage, self.model, self.data, self.fabric, bases=self.bases
        )
        batches = Batches(
            train,
            optimization.batch_size,
            seed=self.options.seed,
            stage=stage.name,
            device=device,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            augment=None if stage.prepare else self.data.preparation.augmentation(),
        )
        progress = Progress.at(0, optimization.steps, device, batch_size=optimization.batch_size)
        if checkpoint is None:
            self._initialize(stage, batches, progress, optimization.accumulate)
        shards = self._shards(stage)
        loss = PhaseLoss(self.model, optimization) if shards is None else shards.loss
        parts = (lambda own: own) if shards is None else shards.parameters
        work = Work(
            stage=stage,
            optimization=optimization,
            run=self.path,
            device=device,
            batches=batches,
            validation=validation,
            module=self.fabric.setup_module(self._compiled(stage, loss), move_to_device=not resting),
            optimizers={
                p.name: self.fabric.setup_optimizers(
                    build_optimizer(parts(p.parameters), optimization.of(p.name))
                )
                for p in stage.phases
                if p.optimizer is None
            },
            average=self._average(stage, averages, shards, 0 if checkpoint is None else checkpoint.updates),
            best=self._best(stage, checkpoint),
            progress=progress,
            shards=shards,
        )
        if checkpoint is not None:
            for name, optimizer in work.optimizers.items():
                like = None if shards is None else shards.like
                checkpoints.restore_optimizer(optimizer.optimizer, checkpoint.optimizers[name], like)
            work.sums = dict(checkpoint.sums)
        return work

    def _shards(self, stage: Stage) -> "Shards | None":
        """The copy of the model with which a stage is trained that is sharded."""
        if not self.is_sharded(stage):
            return None
        from ancestral.training.sharding import Shards  # noqa: PLC0415

        self._train_mode(stage)  # the copy's too, which nothing else is done with
        optimization = self.optimizations[stage.name]
        return Shards(self.model, stage, optimization, self.fabric.device, self.resting(stage))

    def is_sharded(self, stage: Stage) -> bool:
        """Whether each process has a part of the weights that a stage trains, as ``strategy`` says."""
        if self.options.strategy != "fsdp" or len(stage.phases) > 1:
            return False
        rows = all(p.dim() for p in stage.phases[0].parameters)  # by which they are divided
        return rows and bool(repeated_blocks(self.model, stage.modules))

    def held(self, stage: Stage) -> dict[str, int]:
        """Bytes that one process holds while a stage is trained, by what they are for."""
        optimization, processes = self.optimizations[stage.name], self.fabric.world_size
        resting = self.resting(stage)
        others = [p for name, p in self.model.named_parameters() if name not in resting]
        sharded = self.is_sharded(stage)
        return held(stage, optimization, processes=processes, sharded=sharded, others=others)

    def resting(self, stage: Stage) -> set[str]:
        """The names of the weights that stay in the memory of the host while a GPU trains a stage.

        They are those of the stages that it does not need; all are on the device where DDP wants them there.
        """
        if self.fabric.device.type == "cpu" or (self.fabric.world_size > 1 and not self.is_sharded(stage)):
            return set()
        names = {n for names in idle(self.model, self.model.stages(), [stage.name]).values() for n in names}
        first, _ = next(self.model.named_parameters())
        return set() if first in names else names  # the model is said to be where its first parameter is

    def _average(
        self, stage: Stage, values: Mapping[str, Tensor], shards: "Shards | None", updates: int
    ) -> Average | None:
        """The average of a stage after ``updates`` of it, which goes on from ``values`` where there are any.

        It is quick at the start of each stage: else the first values of weights that are new would stay in it
        for long.
        """
        decay = self.optimizations[stage.name].average_decay
        if decay is None:
            return None
        names = owned(self.model, stage.modules if stage.averaged is None else stage.averaged)
        if shards is not None:
            return Average(shards.network, names, decay, shards.split(values), updates)
        return Average(self.model, names, decay, values, updates)

    def _best(self, stage: Stage, checkpoint: Checkpoint | None) -> Best | None:
        """The best weights of a stage so far, if its optimization keeps them."""
        if not self.optimizations[stage.name].keep_best:
            return None
        names = owned(self.model, stage.modules if stage.averaged is None else stage.averaged)
        if checkpoint is None or checkpoint.best_loss is None:
            return Best(self.model, names, {}, math.inf, 0)
        return Best(self.model, names, checkpoint.best, checkpoint.best_loss, checkpoint.best_step)

    def _initialize(self, stage: Stage, batches: Batches, progress: Progress, parts: int) -> None:
        if stage.initialize is None:
            return
        seed_step(self.fabric.device, self.options.seed, stage.name, "initialize", self.fabric.global_rank)
        self._train_mode(stage)
        whole = self.optimizations[stage.name].batch_size
        wanted = whole // parts if stage.initial is None else min(stage.initial, len(batches.data))
        count = -(-wanted // whole)
        batch = Batch.cat([self._transformed(stage, batches[i], progress) for i in range(count)])
        with self.fabric.autocast():
            initialize(self.model, stage, batch[: wanted // self.fabric.world_size])

    def _compiled(self, stage: Stage, loss: nn.Module) -> nn.Module:
        """The loss, compiled if the stage's optimization says so and the machine can."""
        if not self.optimizations[stage.name].compile:
            return loss
        if self.is_sharded(stage):
            if self._leads:
                print(f"not compiling the step of stage {stage.name}, so slower: it is sharded", flush=True)
            return loss
        if not stage.compiles:
            if self._leads:
                what = "its loss differentiates a gradient"
                print(f"not compiling the step of stage {stage.name}, so slower: {what}", flush=True)
            return loss
        compiles = can_compile(self.fabric.device)
        if self._leads and compiles:
            avoid = f"--{stage.name}.no-compile does without"
            print(f"compiling the step of stage {stage.name}: the first takes a minute ({avoid})", flush=True)
        elif self._leads:
            lacking = "there is no C++ compiler (g++ or clang++)"
            print(f"not compiling the step of stage {stage.name}, so slower: {lacking}", flush=True)
        if compiles:  # the few complex numbers, those of spectra, are left to PyTorch's own operators
            message = "Torchinductor does not support code generation for complex"
            warnings.filterwarnings("ignore", message=message)
        # Automatic dynamic shapes break in the CPU backend, and shapes never change here.
        return torch.compile(loss, dynamic=False) if compiles else loss  # type: ignore[return-value]

    def _train_only(self, *phases: Phase) -> None:
        """Let gradients reach the parameters of these phases and no others."""
        active = {id(p) for phase in phases for p in phase.parameters} - self._constants
        for p in self.model.parameters():
            p.requires_grad_(id(p) in active)

    def _train_mode(self, stage: Stage) -> None:
        """Training mode for what the stage trains, and what that is part of.

        Evaluation mode for the rest, whose statistics must stay.
        """
        self.model.eval()
        for module in self.model.modules():
            if any(trained in module.modules() for trained in stage.modules):
                module.training = True
        for trained in stage.modules:
            trained.train()

    @torch.no_grad()
    def _transformed(self, stage: Stage, batch: Batch, progress: Progress) -> Batch:
        return batch if stage.transform is None else stage.transform(batch, progress)

    def _step(self, work: Work, step: int) -> None:
        """One step: the phases in turn, each as often as it says, each time with a batch of its own."""
        stage = work.stage
        seed_step(work.device, self.options.seed, stage.name, step, self.fabric.global_rank)
        work.progress.step.fill_(step)
        draw = step * sum(phase.repeat for phase in stage.phases)
        for phase in stage.phases:
            for repeat in range(phase.repeat if step % phase.every == 0 else 0):
                batch = self._transformed(stage, work.batches[draw + repeat], work.progress)
                total, terms = self._update(work, phase, batch, step)
                work.count(phase, step, total, terms)
            draw += phase.repeat
        work.steps += 1
        if work.average is not None:
            work.average.update()

    def _update(
        self, work: Work, phase: Phase, batch: Batch, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """One update of a phase: the loss before it and its terms, means over the accumulated parts."""
        optimization, updates, optimizer = work.optimization, work.updates(phase), work.optimizer(phase)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(updates, step, optimization.steps)
        if len(work.stage.phases) > 1:
            self._train_only(phase)
        if optimization.accumulate == 1:
            total, terms = work.module(batch.tensors(), phase.name, work.progress.step)
            self.fabric.backward(total)
            total = total.detach()
        else:
            total, terms = self._accumulate(work, phase, batch)
        if work.device.type == "cpu" and not math.isfinite(total.item()):
            return total, terms  # the weights stay as they are; the loop stops
        if updates.gradient_clip is not None:
            clip = updates.gradient_clip
            self.fabric.clip_gradients(work.module, optimizer, max_norm=clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        return total, terms

    def _accumulate(self, work: Work, phase: Phase, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, sums = torch.zeros((), device=self.fabric.device), dict[str, Tensor]()
        parts = work.optimization.accumulate
        size = len(batch) // parts
        for i in range(parts):
            part = batch[i * size : (i + 1) * size]
            # Gradients that are kept in parts are put together and divided up for each part of the batch.
            waits = i + 1 < parts and work.shards is None
            with self.fabric.no_backward_sync(work.module, enabled=waits):
                loss, terms = work.module(part.tensors(), phase.name, work.progress.step)
                self.fabric.backward(loss / parts)
            total = total + loss.detach() / parts
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / parts
        return total, sums

    def _log(self, work: Work, done: int) -> None:
        """Means since the last entry."""
        now = time.perf_counter()
        elapsed, work.clock = now - work.clock, now  # the time that logging takes belongs to the next entry
        self._seconds += elapsed
        sums = self._sums(work)
        if self.journal:
            means = {name: value / n for name, (value, n) in sums.items()}
            steps = work.optimization.steps
            rates = {
                work.term(phase, "learning_rate"): learning_rate(work.updates(phase), done - 1, steps)
                for phase in work.stage.phases
                if phase.optimizer is None
            }
            extra = rates | {"steps_per_second": work.steps / elapsed, "seconds": self._seconds}
            self.journal.write(work.stage.name, done, "train", means | extra, steps=steps)
            work.warn(means, done)
        work.sums, work.steps = {}, 0

    def _sums(self, work: Work) -> dict[str, tuple[float, int]]:
        """The sums since the last entry, means over all processes, on the host."""
        values = [torch.as_tensor(value, device=work.device) for value, _ in work.sums.values()]
        if not values:
            return {}
        stacked = torch.stack(values)
        if self.fabric.world_size > 1:
            dist.all_reduce(stacked)
            stacked = stacked / self.fabric.world_size
        counts = (n for _, n in work.sums.values())
        return {name: (v, n) for name, v, n in zip(work.sums, stacked.tolist(), counts, strict=True)}

    def _look(self, work: Work, done: int, due: Callable[[int], bool]) -> None:
        """Evaluate and draw with the averaged weights."""
        resting = self.resting(work.stage)
        draws = due(self.options.sample_every) or due(self._measure_every)
        at_rest = () if draws and self.model.can_sample(self._trained(work.stage)) else resting
        if self._leads:
            place(self.model, work.device, at_rest)
        average = self._whole(work)
        with average.in_place() if average is not None else nullcontext():
            if due(self.options.evaluate_every):
                loss = self.fabric.broadcast(self._evaluate(work, done))
                if work.best is not None and loss is not None:
                    work.best.offer(loss, done)
            if due(self.options.sample_every):
                self._draw(work.stage, done)
            if due(self._measure_every):
                self._measure(work, done)
        if work.shards is not None:
            self.model.to("cpu")
        else:
            place(self.model, work.device, resting)
        self._train_mode(work.stage)
        work.clock = time.perf_counter()

    def _whole(self, work: Work) -> Average | None:
        """The average of the model's weights, once these are whole. All processes must come here together."""
        average = work.average
        if work.shards is None:
            return average
        from ancestral.training.sharding import gathered  # noqa: PLC0415

        work.shards.gather()
        if average is None:
            return None
        values = gathered(average.values)
        return Average(self.model, values.keys(), average.decay, values, average.updates)

    def _final(self, work: Work) -> Average | None:
        """What samples use once a stage has ended, in place of its last weights."""
        average, best = self._whole(work), work.best
        if best is None or not best.step:
            return average
        best.weights.updates = average.updates if average is not None else 0  # of what a next stage goes on
        return best.weights

    def _save(self, work: Work, done: int) -> None:
        """A checkpoint, and at the end of a stage the model; only of finite weights."""
        work.check_losses()
        ends, best = done == work.optimization.steps, work.best
        sums, average = self._sums(work), self._final(work) if ends else self._whole(work)
        if ends and work.stage.finish is not None and work.shards is None:
            self._finish(work.stage.name, work.stage.finish, average)
        optimizers = {n: checkpoints.flatten_optimizer(o.optimizer) for n, o in work.optimizers.items()}
        if work.shards is not None:
            from ancestral.training.sharding import gathered  # noqa: PLC0415

            optimizers = {name: gathered(state) for name, state in optimizers.items()}
        if self._leads:
            work.check_finite(done, self._learned(), "tensor")
            work.check_finite(done, average.values if average is not None else {}, "average")
            if ends:
                self.model.trained = self._trained(work.stage)
                with average.in_place() if average is not None else nullcontext():
                    self.model.save_pretrained(self.path / "model", without=self._absent)
            state = Checkpoint(
                stage=work.stage.name,
                step=done,
                weights={n: t for n, t in self.model.state_dict().items() if n not in self._left_out},
                optimizers=optimizers,
                averages=average.values if average is not None else {},
                updates=average.updates if average is not None else 0,
                best=best.weights.values if best is not None and best.step else {},
                best_loss=best.loss if best is not None and best.step else None,
                best_step=best.step if best is not None else 0,
                sums=sums,
                seconds=self._seconds,
            )
            checkpoints.save(self.path / "checkpoints", state, self.options.keep)
        self._saved = time.monotonic()
        self.fabric.barrier()

    @torch.no_grad()
    def _finish(self, name: str, finish: Callable[[], None], average: Average | None) -> None:
        """Let a stage set statistics of the weights that samples use."""
        seed_step(self.fabric.device, self.options.seed, name, "finish", self.fabric.global_rank)
        with self.fabric.autocast():
            if average is None:
                finish()
                return
            with average.in_place():
                finish()
                average.follow()

    @property
    def _left_out(self) -> set[str]:
        """The names of what is not saved; a model that is built again has the same values, by its seed."""
        return {name for names in self._absent.values() for name in names}

    def _learned(self) -> dict[str, Tensor]:
        """All that is saved, without what was not finite from the start (a mask of attention)."""
        return {
            name: tensor for name, tensor in self.model.state_dict().items() if name not in self._infinite
        }

    def _trained(self, stage: Stage | None) -> tuple[str, ...]:
        """The stages that are trained at the end of ``stage``, in order; those taken over if that is None."""
        names = [s.name for s in self.stages]
        trained = {*self.taken, *(names[: names.index(stage.name) + 1] if stage else ())}
        return tuple(s.name for s in self.model.stages() if s.name in trained)

    @torch.no_grad()
    def _evaluate(self, work: Work, step: int) -> float | None:
        """The loss on (the first of) the validation split, always with one noise; the first process alone."""
        seen = min(len(work.validation), _VALIDATION_EXAMPLES)
        phases = [phase for phase in work.stage.phases if phase.validated]
        if self.journal is None or not seen or not phases:
            return None
        self.model.eval()
        sums: dict[str, float] = {}
        seed_step(work.device, self.options.seed, work.stage.name, "validation")
        # What one process has in memory at a time in a step.
        size = max(1, work.optimization.batch_size // (work.optimization.accumulate * self.fabric.world_size))
        for phase in phases:
            for start in range(0, seen, size):
                batch = work.validation[start : min(start + size, seen)].to(work.device)
                batch = self._transformed(work.stage, batch, work.progress)
                with self.fabric.autocast():
                    loss = self.model.loss(batch, phase.name, work.progress)
                for name, value in {"loss": loss.total, **loss.terms}.items():
                    key = work.term(phase, name)
                    sums[key] = sums.get(key, 0.0) + float(value) * len(batch)
        means = {name: value / seen for name, value in sums.items()}
        if wrong := [name for name, value in means.items() if not math.isfinite(value)]:
            raise work.diverged(step, f"validation, term {wrong[0]}")
        self.journal.write(work.stage.name, step, "validation", means, steps=work.optimization.steps)
        return sum(means[work.term(phase, "loss")] for phase in phases)

    @property
    def _measure_every(self) -> int:
        asked = self.options.measure_every
        return self.options.evaluate_every if asked is None else asked

    def _measure(self, work: Work, step: int) -> None:
        """Measures of samples, where there is a monitor and the model can be sampled."""
        able = self.monitor is not None and self.model.can_sample(self._trained(work.stage))
        if self.journal is None or self.monitor is None or not able:
            return
        self.model.eval()
        self.monitor.classifier.to(work.device)
        values = self.monitor(self.model)
        self.journal.write(work.stage.name, step, "samples", values, steps=work.optimization.steps)
        work.warn(values, step)

    @torch.no_grad()
    def _draw(self, stage: Stage, step: int) -> None:
        """Pictures of samples, and of originals above their reconstructions."""
        if self.journal is None:
            return
        self.model.eval()
        drawn = {}
        if self.model.can_sample(self._trained(stage)):
            try:
                drawn["step"] = sheets.samples(self.model, self.data, self.options.seed)
            except UserError as error:  # that samples cannot be drawn yet does not end a training
                print(f"no samples of step {step}: {error.problem}", flush=True)
        if isinstance(self.model, Reconstructs) and stage.prepare is None:
            drawn["reconstructions"] = sheets.reconstructions(self.model, self.data)
        for name, sheet in drawn.items():
            media.write_sheet(self.path / "samples" / f"{stage.name}-{name}-{step:06d}.png", sheet)
            self.journal.picture(name, step, sheet.pixels)

    def _wanted(self, done: int, last: bool) -> tuple[bool, bool]:
        """Whether all processes are to stop after this step, and whether a checkpoint is due by the clock."""
        received, minutes = self._signals.received, self.options.checkpoint_minutes
        overdue = minutes > 0 and time.monotonic() - self._saved > 60 * minutes
        if self.fabric.world_size == 1:
            return received is not None, overdue
        if done % _AGREE_EVERY and not last:
            return False, False
        here = torch.tensor([float(received or 0), float(overdue and self._leads)], device=self.fabric.device)
        number, due = self.fabric.all_reduce(here, reduce_op="max").tolist()  # type: ignore[union-attr]
        # A signal that came meanwhile waits for the next agreement.
        self._signals.received = int(number) or self._signals.received
        return bool(number), bool(due)

    @contextmanager
    def _journal(self) -> Iterator[None]:
        if not self._leads:
            yield
            return
        with Journal(self.path) as self.journal:
            yield


def _due(done: int, steps: int) -> Callable[[int], bool]:
    """Whether something that happens every so many steps, and at the end of the stage, is due."""
    return lambda every: done == steps or (every > 0 and done % every == 0)
