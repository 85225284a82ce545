"""The machinery of benchmarks/training.py: programs that take turns, what counts as speed, the peer's first step."""

from __future__ import annotations

import importlib
import itertools
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are stopped by signal")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The modules `training`, `turns` and `sides`, as the benchmark itself imports them."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("training", "turns", "sides")})
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _program(benchmark: Any, folder: Path, name: str, body: str) -> Any:
    """A small program that keeps pace, and writes when it works to a diary."""
    script = folder / f"{name}.py"
    script.write_text(
        f"import sys, time\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom turns import Pace\n" + textwrap.dedent(body)
    )
    return benchmark.turns.Program([sys.executable, str(script)], folder / f"{name}.log", {})


WORKER = """
pace = Pace(2)
print("chatter that must not reach the reports")
for step in range(6):
    with open({diary!r}, "a") as diary:
        diary.write({name!r})
    pace.step()
pace.report(done=True, answer=42)
"""


def test_programs_take_turns_block_by_block(benchmark: Any, tmp_path: Path) -> None:
    diary = str(tmp_path / "diary")
    both = {n: _program(benchmark, tmp_path, n, WORKER.format(diary=diary, name=n)) for n in "ab"}
    benchmark.turns.take_turns(both)
    # one step each, then two each, then the last one
    assert Path(diary).read_text() == "a" + "b" + "aabb" + "aabb" + "ab"
    for program in both.values():
        assert [block[2] for block in program.blocks] == [1, 2, 2, 1]
        assert program.result == {"steps": 6, "answer": 42}
        assert program.process.returncode is not None


def test_time_that_the_other_spends_is_not_counted(benchmark: Any, tmp_path: Path) -> None:
    body = "pace = Pace(1)\nfor step in range(3):\n    time.sleep({nap})\n    pace.step()\npace.report(done=True)"
    quick = _program(benchmark, tmp_path, "quick", body.format(nap=0))
    slow = _program(benchmark, tmp_path, "slow", body.format(nap=0.4))
    benchmark.turns.take_turns({"quick": quick, "slow": slow})
    assert sum(block[0] for block in quick.blocks[1:]) < 0.4 < slow.blocks[1][0]


def test_a_program_that_fails_says_why_and_the_others_end(benchmark: Any, tmp_path: Path) -> None:
    good = _program(benchmark, tmp_path, "good", "pace = Pace(1)\nwhile True:\n    pace.step()")
    bad = _program(benchmark, tmp_path, "bad", "pace = Pace(1)\npace.step()\nraise ValueError('no such flag')")
    with pytest.raises(SystemExit, match=r"(?s)bad\.log.*no such flag"):
        benchmark.turns.take_turns({"good": good, "bad": bad})
    assert good.process.poll() is not None


def test_speed_leaves_out_the_warm_up_and_the_end(benchmark: Any) -> None:
    blocks = [(30.0, 20.0, 1), (9.0, 8.0, 10), (2.0, 1.0, 10), (6.0, 3.0, 10), (50.0, 40.0, 1)]
    assert benchmark.training.speed(blocks) == 16 * 20 / 8
    assert benchmark.training.speed(blocks, clock=1) == 16 * 20 / 4
    assert benchmark.training.speed(blocks, batch=4) == 4 * 20 / 8


def _done(first: float, each: float) -> Any:
    blocks = [(first, first, 1), (each, each, 10), (each, each, 10), (each, each, 10), (1.0, 1.0, 1)]
    return SimpleNamespace(blocks=blocks, result={"peak_resident": 500e6})


def test_the_summary_of_the_rounds(benchmark: Any) -> None:
    runs = {"ours": [_done(30, 2), _done(30, 4), _done(30, 2)], "peer": [_done(20, 8)] * 3}
    made = benchmark.training.summary(runs, {"ours": [0.2, 0.1, 0.3], "peer": [0.2, 0.2, 0.2]}, before=0.5)
    assert made["images_per_second"] == {"ours": 80.0, "peer": 20.0}
    assert made["ratio"] == 4.0 and made["ratio_by_round"] == [4.0, 2.0, 4.0]
    assert made["fixed_noise_loss"] == {"before": 0.5, "ours": 0.2, "peer": 0.2}
    # ten seconds behind at the first step, and 1/20 - 1/80 seconds an image faster from there
    assert made["images_until_ahead"] == round(10 / (1 / 20 - 1 / 80))
    slower = {"ours": [_done(30, 9)], "peer": [_done(20, 8)]}
    made = benchmark.training.summary(slower, {"ours": [0.2], "peer": [0.2]}, before=0.5)
    assert made["images_until_ahead"] is None


def test_both_sides_are_told_the_same(benchmark: Any, tmp_path: Path) -> None:
    sides, folders = benchmark.sides, benchmark.sides.Folders(tmp_path)
    for case in benchmark.training.cases(workers=2).values():
        ours = sides.our_settings(case, folders, tmp_path / "ours", 62, 3)
        flags = sides.peer_flags(case, folders, tmp_path / "peer", 62, 3)
        said = dict(itertools.pairwise(flags))
        names = {"--max_train_steps": "steps", "--train_batch_size": "batch_size", "--seed": "seed",
                 "--learning_rate": "learning_rate", "--pretrained_model_name_or_path": "base"}  # fmt: skip
        for flag, name in names.items():
            assert said[flag] == str(ours[name])
        trains_text = "--train_text_encoder" in flags
        assert benchmark.training.TrainConfig(**ours).trains_text is trains_text
    matched = benchmark.training.cases(workers=2)["matched"]
    assert "--dataloader_num_workers" not in matched.peer


SCRIPT = '''
import argparse, itertools, torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from tqdm.auto import tqdm
parser = argparse.ArgumentParser()
parser.add_argument("--out")
options = parser.parse_args()
torch.manual_seed(0)
layer, accelerator = torch.nn.Linear(3, 1), Accelerator(cpu=True)
schedule, bar = DDPMScheduler(), tqdm(range(4), desc="Steps")
for step in range(4):
    clean, noise = torch.randn(2, 3), torch.randn(2, 3)
    noisy = schedule.add_noise(clean, noise, torch.tensor([1, 900]))
    loss = layer(noisy).square().mean()
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(itertools.chain(layer.parameters()), 1e-6)
    bar.update(1)
    layer.zero_grad()
open(options.out, "w").write("saved")
'''


def test_a_script_runs_as_it_is_and_its_first_step_is_recorded(benchmark: Any, tmp_path: Path) -> None:
    """A stand-in of the peer's script, for this project holds no copy of it: same names, other work."""
    from diffusers import DDPMScheduler
    from safetensors.torch import load_file

    site = tmp_path / "site"  # a torchvision built for another PyTorch: it describes an operator that is not there
    (site / "torchvision").mkdir(parents=True)
    (site / "torchvision" / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::no_such_operator')\ndef meta(x): return x\n"
    )
    script, probe = tmp_path / "script.py", tmp_path / "probe.safetensors"
    script.write_text(SCRIPT)
    task: dict[str, Any] = {"script": str(script), "flags": ["--out", str(tmp_path / "out")], "probe": str(probe),
                            "site": str(site), "block": 1}  # fmt: skip
    program = benchmark.turns.program(tmp_path / "log", 1, **task)
    benchmark.turns.take_turns({"peer": program})
    assert (tmp_path / "out").read_text() == "saved"
    assert [block[2] for block in program.blocks] == [1, 1, 1, 1, 0]
    assert program.result["peak_resident"] > 50e6
    seen = load_file(probe)
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1)
    assert torch.equal(seen["latents"], torch.randn(2, 3)) and torch.equal(seen["noise"], torch.randn(2, 3))
    noisy = DDPMScheduler().add_noise(seen["latents"], seen["noise"], seen["timesteps"])
    loss = layer(noisy).square().mean()
    loss.backward()
    torch.testing.assert_close(seen["loss"], loss.detach())
    torch.testing.assert_close(seen["gradient.0"], layer.weight.grad)  # before clipping
    assert "gradient.2" not in seen


def test_a_script_is_named_as_git_names_it(benchmark: Any, tmp_path: Path) -> None:
    file = tmp_path / "hello.txt"
    file.write_bytes(b"hello\n")
    assert benchmark.training.identity(file) == {
        "script": "hello.txt", "git_blob": "ce013625030ba8dba906f756967f9e9ca394464a",
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_cases_of_the_gpu_can_be_told_to_both_sides(benchmark: Any, tmp_path: Path, precision: str) -> None:
    folders = benchmark.sides.Folders(tmp_path)
    for case, cap, steps, block in benchmark.training.gpu_cases(precision).values():
        config = benchmark.training.TrainConfig(**benchmark.sides.our_settings(case, folders, tmp_path, steps, 0))
        assert config.rows == case.batch and config.gradient_checkpointing
        assert cap is None or 16 <= cap < 20
        assert (steps - 1) % block == 1 and steps > 2 * block  # the end falls into no turn that counts


def test_the_model_for_the_gpu_has_the_size_of_stable_diffusion(benchmark: Any) -> None:
    with torch.device("meta"):
        parts = benchmark.training.stable_diffusion()
    millions = [round(sum(p.numel() for p in net.parameters()) / 1e6, 1) for net in (parts.unet, parts.text_encoder)]
    assert millions == [859.5, 123.1]
    assert parts.tokenizer.model_max_length == 77 and parts.image_size == 512
