"""What a training tells: metrics.jsonl, TensorBoard and progress on the terminal."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ancestral.files import replacing
from ancestral.units import RATES

_PLAIN_SECONDS = 10.0
"""Seconds between lines where the output is no terminal."""


class Journal:
    """Writes the metrics of one training; only the first process has one.

    Args:
        run: the run directory.
        console: where progress is shown: a bar on a terminal, else a line every ten seconds.
    """

    def __init__(self, run: Path, console: Console | None = None) -> None:
        self.console = console or Console(stderr=False, highlight=False)
        self._metrics = run / "metrics.jsonl"
        self._folder = run / "tensorboard"
        self._tensorboard: Any = None
        """The writer of the stage."""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_stage()

    def rewind(self, stage: str, step: int) -> None:
        """Forget the entries of ``stage`` after ``step``, which a resumed training writes again."""
        if not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                later = entry["stage"] == stage and int(entry["step"]) > step
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # the last line of a killed process, or no entry at all
            if not later:
                kept.append(line + "\n")
        with replacing(self._metrics) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        self.console.print(text, markup=False, soft_wrap=True)

    def begin_stage(self, stage: str, step: int, steps: int) -> None:
        """Start the progress of a stage, and its TensorBoard.

        What a killed process wrote there after ``step`` is forgotten.
        """
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes a second, which only a training should pay

        self._tensorboard = SummaryWriter(str(self._folder / stage), purge_step=step + 1)
        self._last_line = time.monotonic()
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}  {task.fields[status]}"),
                console=self.console,
            )
            self._progress.start()
            self._task = self._progress.add_task(stage, completed=step, total=steps, status="")

    def end_stage(self) -> None:
        """Stop the progress of a stage, and close its TensorBoard."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def write(self, stage: str, step: int, split: str, values: Mapping[str, float], *, steps: int) -> None:
        """One entry of metrics: to the file, to TensorBoard and to the terminal."""
        entry: dict[str, Any] = {"stage": stage, "step": step, "split": split} | dict(values)
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{name}/{split}", value, step)
        self._show(stage, step, split, values, steps)

    def picture(self, name: str, step: int, image: Any) -> None:
        """A sheet ``(H, W)`` or ``(H, W, 3)`` uint8 for TensorBoard."""
        self._tensorboard.add_image(name, image, step, dataformats="HW" if image.ndim == 2 else "HWC")

    def _show(self, stage: str, step: int, split: str, values: Mapping[str, float], steps: int) -> None:
        hidden = ("seconds", "learning_rate", "steps_per_second", "loss")
        shown = {name: value for name, value in values.items() if not name.endswith(hidden)}
        terms = "  ".join(_readable(name, value) for name, value in shown.items())
        if split != "train":
            self.say(f"{stage} {step}/{steps}  {split}: {terms}")
            return
        speed = values.get("steps_per_second", 0.0)
        left = f"{_clock((steps - step) / speed)} left" if speed else ""
        status = f"{terms}  {speed:.1f} steps/s  {left}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, status=status)
        elif time.monotonic() - self._last_line >= _PLAIN_SECONDS or step >= steps:
            self._last_line = time.monotonic()
            self.say(f"{stage} {step}/{steps}  {status}")


def _readable(name: str, value: float) -> str:
    for ending, unit in RATES.items():
        if name.endswith(ending):
            of = name.removesuffix(ending).strip("_").replace("_", " ")
            return f"{of or 'loss'} {value:.4g} {unit}"
    return f"{name.replace('_', ' ')} {value:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
