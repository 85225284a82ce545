"""A population of 5,000 images by two processes, killed twice on the way, and by one process in one go.

    python benchmarks/synthesize.py --out benchmarks/results/synthesize.json

Both folders go to build/synthesize. The first is made under `accelerate launch`; all of its processes are killed
(SIGKILL) when a third and when two thirds of the images are there, and the command is given again. Then: is it
complete, is no image there twice, and are its checksums those of the second folder? Speeds are of the whole command,
loading included. With `--training-data DIR` (the phantoms that `fused` learned from, see tools/train_tiny_models.py)
copies are looked for; a small third folder is written as DICOM and validated with `dciodvfy`, if that is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from provenance import report

from mame_lib.data.manifest import load
from mame_lib.synthesize import Spec, spec_from
from mame_lib.synthesize.plan import BLOCK

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "synthesize"
POPULATION = {
    "seed": 2024,
    "steps": 4,
    "most_tries": 2,
    "vendor": {"hologic": 0.6, "siemens": 0.4},
    "density": {"very low": 0.1, "low": 0.4, "high": 0.4, "very high": 0.1},
    "finding": {"none": 0.7, "mass": 0.1, "spiculated mass": 0.1, "calcification cluster": 0.1},
    "split": {"train": 0.8, "validation": 0.1, "test": 0.1},
}
DICOM_FILES = 16
PROCESS = ("-m", "mame_lib", "synthesize")


def command(spec: Path, count: int, out: Path, processes: int, *more: str) -> list[str]:
    """The command line: alone, or under `accelerate launch`."""
    line = [*PROCESS, str(spec), "--count", str(count), "--out", str(out), *more]
    if processes == 1:
        return [sys.executable, *line]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # on a processor as on GPUs: with --cpu accelerate would start one process only, unless there is MPI
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)]  # fmt: skip
    return [sys.executable, "-m", *launch, *line]


def there(out: Path) -> int:
    """Images whose block is complete."""
    return BLOCK * len(list((out / "blocks").glob("*.jsonl")))


def kill(process: subprocess.Popen[Any]) -> int:
    """SIGKILL to a command and all that it started; how many processes that was."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=60)
    process.wait()
    return len(family)


def run(line: list[str], out: Path, kill_at: int | None = None) -> dict[str, Any]:
    """Run a command to its end, or until `kill_at` images are there; how long it took and how many it made."""
    before, started = there(out), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    killed = 0
    while kill_at is not None and process.poll() is None:
        if there(out) >= kill_at:
            killed = kill(process)
            break
        time.sleep(0.05)
    said, _ = process.communicate()
    seconds = time.perf_counter() - started
    if not killed and process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    made = (there(out) if killed else len(load(out).cases)) - before
    print(f"{made} images in {seconds:.0f} s{f', {killed} processes killed' if killed else ''}", flush=True)
    found = {"images": made, "seconds": round(seconds, 1), "processes_killed": killed}
    return found if killed else {**found, "said": said.split(": ", 1)[-1].strip().splitlines()}


def rows(out: Path) -> list[dict[str, Any]]:
    """recipes.jsonl."""
    return [json.loads(line) for line in (out / "recipes.jsonl").read_text(encoding="utf-8").splitlines()]


def outcome(out: Path, count: int) -> dict[str, Any]:
    """What a finished folder holds."""
    made = rows(out)
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=out, capture_output=True)
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        "images": len(load(out).cases),
        "complete": [row["index"] for row in made] == list(range(count)),
        "distinct_images": len({row["pixels"] for row in made}),
        "lesions": sum(bool(row.get("lesion")) for row in made),
        "findings": dict(Counter(row["asked"].get("finding", "none") for row in made)),
        "no_room": sum("lesion" in row and row["lesion"] is None for row in made),
        "redrawn": sum(row["redrawn"] > 0 for row in made),
        "failed_every_time": sum((row["badness"] or 0) > 1 for row in made),
        "checksums_hold": checked.returncode == 0,
        "files": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "left_over": [path.name for path in files if path.name.endswith((".tmp", ".partial")) or ".lock" in path.name],
    }


def dicom(spec: Path, work: Path) -> dict[str, Any]:
    """A few images as DICOM, and what the validator says of them."""
    out = work / "dicom"
    run(command(spec, DICOM_FILES, out, 1, "--dicom"), out)
    if shutil.which("dciodvfy") is None:
        return {"files": DICOM_FILES, "dciodvfy": None}
    lines: Counter[str] = Counter()
    for path in sorted((out / "dicom").iterdir()):
        lines.update(subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True).stderr.splitlines())
    errors = sum(number for line, number in lines.items() if "Error" in line)
    return {"files": DICOM_FILES, "errors": errors, "dciodvfy": dict(lines.most_common())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=POPULATION["steps"], help="of the sampler")
    parser.add_argument("--training-data", type=Path, help="the phantoms of fused, a data set")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)
    population: Spec = spec_from({**POPULATION, "steps": asked.steps})
    spec, broken, whole = (asked.work / name for name in ("population.toml", "broken", "whole"))
    spec.write_text(population.to_toml(), encoding="utf-8")

    many = command(spec, asked.count, broken, asked.processes)
    runs = [run(many, broken, kill_at=asked.count * third // 3) for third in (1, 2)] + [run(many, broken)]
    alone = run(command(spec, asked.count, whole, 1), whole)
    sums = [(out / "checksums.sha256").read_bytes() for out in (broken, whole)]
    seconds = sum(one["seconds"] for one in runs)
    result: dict[str, Any] = {
        "count": asked.count,
        "population": population.to_dict(),
        "weights": json.loads((whole / "synthesis.json").read_text())["weights"],
        "killed": {
            "processes": asked.processes, "runs": runs, "seconds": round(seconds, 1),
            "images_per_second": round(asked.count / seconds, 2), **outcome(broken, asked.count),
        },
        "unbroken": {
            "processes": 1, "runs": [alone], "seconds": alone["seconds"],
            "images_per_second": round(asked.count / alone["seconds"], 2), **outcome(whole, asked.count),
        },
        "same_checksums": sums[0] == sums[1],
        "checksums": len(sums[0].splitlines()),
        "dicom": dicom(spec, asked.work),
    }  # fmt: skip
    if asked.training_data is not None:
        more = ("--training-data", str(asked.training_data))
        run(command(spec, asked.count, whole, 1, *more), whole)
        check = json.loads((whole / "training_check.json").read_text())
        result["training_check"] = {**check, "flagged": len(check["flagged"]), "first_flagged": check["flagged"][:10]}
    report(result, asked.out, "torch", "diffusers", "accelerate", "pydicom")


if __name__ == "__main__":
    main()
