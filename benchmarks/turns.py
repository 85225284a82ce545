"""Training programs that take turns on one machine, block by block, so that a busy minute falls on all of them.

A program runs in a process of its own (`Program`, used by the benchmark). After its first step and then after every
`block` steps it reports (`Pace`, used inside), and is stopped, with its loader's workers, until it is called again.
Only the time between a call and the next report counts. Works on Linux and macOS: it stops processes by signal.

`run_script` runs a program of others, unmodified: it counts the steps of its progress bar, and can write down what its
first step computed.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

BLOCK = 10  # steps of a turn


class Pace:
    """The side of the program: report after steps 1, 1 + block, 1 + 2 block, … and wait to be called again.

    What the program prints goes to its log; the reports have the old standard output for themselves.
    """

    def __init__(self, block: int) -> None:
        self.block, self.steps = block, 0
        self.pipe: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def step(self) -> None:
        """To be called after each optimizer step."""
        self.steps += 1
        if (self.steps - 1) % self.block == 0:
            self.report()

    def report(self, **more: Any) -> None:
        """Say how far we are, and wait."""
        print(json.dumps({"steps": self.steps, **more}), file=self.pipe, flush=True)
        sys.stdin.readline()

    def end(self) -> None:
        """The last report: the work is done and saved."""
        self.report(done=True, **memory())


def memory() -> dict[str, int]:
    """Largest memory of this process so far in bytes: resident, and of the GPU, allocated and reserved."""
    import torch

    from mame_lib.training.meter import peak_memory

    found = peak_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {"peak_resident": found.pop("peak_memory"), **found}


class Program:
    """A process that trains and reports. `blocks` are (wall seconds, CPU seconds with its workers, steps)."""

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.command, self.log, self.env = command, log, {**os.environ, **env}
        self.process: subprocess.Popen[str] | None = None
        self.steps, self.cpu = 0, 0.0
        self.blocks: list[tuple[float, float, int]] = []
        self.result: dict[str, Any] = {}

    def turn(self) -> bool:
        """Start it, or let it go on, until its next report; True as long as there is more to do.

        Raises `SystemExit` with the end of its log when it fails.
        """
        began = time.perf_counter()
        process = self._called()
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        if not line:
            self.close()
            raise SystemExit(f"{self.log.name}: the program failed:\n{self.tail()}")
        os.killpg(process.pid, signal.SIGSTOP)
        report, cpu = json.loads(line), _cpu(process.pid)
        self.blocks.append((seconds, cpu - self.cpu, report["steps"] - self.steps))
        self.steps, self.cpu = report["steps"], cpu
        if report.pop("done", False):
            self.result = report
            self.close()
        return not self.result

    def _called(self) -> subprocess.Popen[str]:
        if self.process is not None:
            assert self.process.stdin is not None
            os.killpg(self.process.pid, signal.SIGCONT)
            print(file=self.process.stdin, flush=True)
            return self.process
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=self.env, text=True,
                start_new_session=True,
            )  # fmt: skip
        return self.process

    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def close(self) -> None:
        """End it, with its workers."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its living children so far."""
    parent, total = psutil.Process(pid), 0.0
    for one in [parent, *parent.children(recursive=True)]:
        times = one.cpu_times()
        total += times.user + times.system
    return total


def take_turns(programs: dict[str, Program]) -> None:
    """Run all to their ends: first each alone to its first step, then a block each, in turn."""
    try:
        left = list(programs.values())
        while left:
            left = [program for program in left if program.turn()]
    finally:
        for program in programs.values():
            program.close()


def program(log: Path, threads: int, *, gpu: bool = False, **task: Any) -> Program:
    """A process of one side: this file, called with a task (see `work`)."""
    env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not gpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
    return Program([sys.executable, __file__, json.dumps(task)], log, env)


def work(task: dict[str, Any]) -> None:
    """Inside the process: train, and report to the benchmark. `cap_gib` bounds the memory of the GPU."""
    pace = Pace(task.get("block", BLOCK))
    if cap := task.get("cap_gib"):
        import torch

        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    if "ours" in task:
        from mame_lib.training.config import TrainConfig
        from mame_lib.training.loop import fit

        for result in fit(TrainConfig(**task["ours"])):
            if result.step:
                pace.step()
    else:
        if task.get("site"):
            sys.path.append(task["site"])
        probe = task.get("probe")
        run_script(Path(task["script"]), task["flags"], pace, Path(probe) if probe else None)
    pace.end()


def run_script(script: Path, flags: Sequence[str], pace: Pace, probe: Path | None = None) -> None:
    """Run a training script of diffusers as it is, in this process; its progress bar "Steps" sets the pace.

    probe: write what its first step computed to this file (see `_record_first_step`).
    """
    import tqdm.auto

    class Bar(tqdm.auto.tqdm):  # type: ignore[misc, unused-ignore]
        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if str(self.desc).startswith("Steps"):
                pace.step()
            return shown

    tqdm.auto.tqdm = Bar
    _import_torchvision()
    if probe is not None:
        _record_first_step(probe)
    sys.argv = [str(script), *flags]
    runpy.run_path(str(script), run_name="__main__")


def _import_torchvision() -> None:
    """Import torchvision also where PyTorch is a CPU build and torchvision is not.

    Its compiled operators are missing then, and so it fails to describe them; the transforms don't need any.
    """
    import torch

    register = torch.library.register_fake

    def tolerant(name: Any, *arguments: Any, **named: Any) -> Any:
        made = register(name, *arguments, **named)

        def decorate(function: Any) -> Any:
            try:
                return made(function)
            except RuntimeError:
                return function

        return decorate

    torch.library.register_fake = tolerant  # type: ignore[assignment]
    try:
        import torchvision  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    except ImportError:
        raise SystemExit("the script of the peer needs torchvision; install it, or put it on PYTHONPATH") from None
    finally:
        torch.library.register_fake = register


def _record_first_step(out: Path) -> None:
    """Write clean latents, noise, timesteps, loss and the gradient before clipping of the first step to `out`."""
    import torch
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from safetensors.torch import save_file

    seen: dict[str, torch.Tensor] = {}
    add_noise, backward, clip = DDPMScheduler.add_noise, Accelerator.backward, Accelerator.clip_grad_norm_

    def noisy(self: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if not seen:
            seen.update(latents=latents.clone(), noise=noise.clone(), timesteps=timesteps.clone())
        return add_noise(self, latents, noise, timesteps)

    def back(self: Any, loss: torch.Tensor, **named: Any) -> None:
        seen.setdefault("loss", loss.detach().clone())
        backward(self, loss, **named)

    def clipped(self: Any, parameters: Any, *rest: Any, **named: Any) -> Any:
        parameters = list(parameters)
        if not out.exists():
            gradients = {f"gradient.{i}": p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None}
            save_file({name: t.contiguous() for name, t in {**seen, **gradients}.items()}, out)
        return clip(self, parameters, *rest, **named)

    DDPMScheduler.add_noise, Accelerator.backward, Accelerator.clip_grad_norm_ = noisy, back, clipped


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
