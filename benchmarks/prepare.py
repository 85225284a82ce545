"""`mame prepare` beside the straightforward way: images per second, peak memory, and the same pixels.

    python benchmarks/prepare.py --out benchmarks/results/prepare.json

Writes 200 full-size synthetic DICOM files (3518 x 2800, 12 of 16 bits, half of them JPEG lossless) and prepares
them at 512 px. Straightforward: one process, pydicom's `apply_modality_lut` and `apply_voi_lut`, Pillow's resize,
center crop, PNG. Ours: `store.prepare`, which also finds the side and the breast, writes its mask, hashes the
patient and survives a kill. The two take turns; medians are reported. Then memory on 200 and on 2,000 files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import report

from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import save_dicom
from mame_lib.data.manifest import load
from mame_lib.data.phantom import draw
from mame_lib.data.preparation import Options
from mame_lib.data.sources.base import SourceCase
from mame_lib.data.store import prepare

HEIGHT, WIDTH = 3518, 2800
SIZE = 512
DISTINCT = 8  # phantoms; each file adds noise of its own, so that none compresses better than a real one


def write_files(folder: Path, count: int, seed: int) -> list[Path]:
    """`count` detector-size files: phantoms enlarged, cut to the detector's shape, with noise in the breast."""
    folder.mkdir(parents=True)
    large = []
    for index in range(DISTINCT):
        phantom = draw(Attributes(area="medium", laterality="L"), size=704, seed=seed, index=index)
        picture = Image.fromarray(phantom.image.astype(np.float32)).resize((HEIGHT, HEIGHT), Image.Resampling.BICUBIC)
        large.append(np.clip(np.asarray(picture)[:, :WIDTH] / 255, 0, 1))
    paths = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        pixels = large[number % DISTINCT]
        noise = 0.004 * rng.standard_normal(pixels.shape, dtype=np.float32)
        pixels = np.clip(pixels + noise * (pixels > 0), 0, 1)
        right = bool(number % 2)
        path = folder / f"{number:05d}.dcm"
        attributes = Attributes(vendor=("hologic", "siemens")[number % 2], view="CC", laterality="LR"[right])
        save_dicom(
            path,
            np.ascontiguousarray(pixels[:, ::-1]) if right else pixels,
            attributes=attributes,
            patient=f"SYNTHETIC-{number // 4}",
            spacing_mm=0.085,
            window=(2048, 4096),
            transfer_syntax="jpeg-lossless-sv1" if number % 4 > 1 else "explicit",
        )
        paths.append(path)
    return paths


def straightforward(source: Path, out: Path) -> None:
    """What a careful person writes in ten minutes."""
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    out.mkdir(parents=True)
    for path in sorted(source.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        gray = np.asarray(values, np.float32) / (2**dataset.BitsStored - 1)  # [h, w]
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            gray = 1 - gray
        if dataset.ImageLaterality == "R":
            gray = np.ascontiguousarray(gray[:, ::-1])
        short = min(gray.shape)
        tall, wide = SIZE * gray.shape[0] // short, SIZE * gray.shape[1] // short
        picture = Image.fromarray(gray).resize((wide, tall), Image.Resampling.BILINEAR)
        top, left = round((tall - SIZE) / 2), round((wide - SIZE) / 2)
        square = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)))
        Image.fromarray(np.rint(np.clip(square, 0, 1) * 255).astype(np.uint8)).save(out / f"{path.stem}.png")


def ours(source: Path, out: Path, workers: int) -> None:
    cases = [SourceCase(path.name, path) for path in sorted(source.glob("*.dcm"))]
    options = Options(salt=b"benchmark", size=SIZE, intensity="range")
    prepare(cases, out, options, source="folder", workers=workers)


def measured(way: str, source: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds and peak resident MB of a fresh process and its children."""
    import psutil

    command = [sys.executable, __file__, "--way", way, "--source", str(source), "--to", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--workers", str(workers)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    parent, peak, ended = psutil.Process(process.pid), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            total = 0
            try:
                for one in [parent, *parent.children(recursive=True)]:
                    total += one.memory_info().rss
            except psutil.Error:
                continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    status = process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    thread.join()
    if status:
        raise SystemExit(f"the way {way!r} failed with status {status}")
    return seconds, peak[0] / 1e6


def difference(plain: Path, prepared: Path) -> dict[str, float]:
    """Largest and mean difference in gray levels between the two outputs, matched by order of the source."""
    data = load(prepared)
    largest, total = 0, 0.0
    for path, case in zip(sorted(plain.glob("*.png")), data.cases, strict=True):
        with Image.open(path) as picture:
            gap = np.abs(np.asarray(picture, int) - data.image(case).astype(int))
        largest, total = max(largest, int(gap.max())), total + float(gap.mean())
    return {"largest": largest, "mean": round(total / len(data.cases), 5)}


def memory_of(folder: Path, file: Path, count: int, workers: int) -> float:
    """Peak MB of `prepare` on `count` names of one small file (links: the disk holds it once)."""
    source = folder / f"links-{count}"
    source.mkdir()
    for number in range(count):
        os.link(file, source / f"{number:05d}.dcm")
    return measured("ours", source, folder / f"links-out-{count}", workers)[1]


def run(count: int, rounds: int, workers: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="mame-benchmark-"))
    try:
        start = time.perf_counter()
        source = folder / "source"
        write_files(source, count, seed=5)
        print(f"{count} files written in {time.perf_counter() - start:.0f} s", flush=True)
        seconds: dict[str, list[float]] = {"straightforward": [], "ours": []}
        memory: dict[str, list[float]] = {"straightforward": [], "ours": []}
        for number in range(rounds):
            for way in seconds:  # taking turns, so that a busy minute falls on both
                took, peak = measured(way, source, folder / f"{way}-{number}", workers)
                seconds[way].append(took)
                memory[way].append(peak)
                print(f"round {number + 1}: {way} {count / took:.2f} images/s, peak {peak:.0f} MB", flush=True)
        speed = {way: count / statistics.median(times) for way, times in seconds.items()}
        gap = difference(folder / "straightforward-0", folder / "ours-0")
        small = folder / "small.dcm"
        phantom = draw(Attributes(laterality="L"), size=704, seed=1).image
        said = Attributes("hologic", "CC", laterality="L")
        save_dicom(small, phantom / np.float32(255), attributes=said, patient="S", spacing_mm=0.3)
        return {
            "files": count, "rounds": rounds, "workers": workers, "matrix": [HEIGHT, WIDTH], "size": SIZE,
            "images_per_second": {way: round(value, 2) for way, value in speed.items()},
            "ratio": round(speed["ours"] / speed["straightforward"], 2),
            "peak_mb": {way: round(statistics.median(values)) for way, values in memory.items()},
            "gray_levels_apart": gap,
            "peak_mb_by_files": {str(n): round(memory_of(folder, small, n, workers)) for n in (200, 2000)},
        }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    for hidden in ("--way", "--source", "--to"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way == "ours":
        ours(Path(options.source), Path(options.to), options.workers)
    elif options.way:
        straightforward(Path(options.source), Path(options.to))
    else:
        result = run(options.count, options.rounds, options.workers)
        report(result, options.out, "pydicom", "python-gdcm", "pillow", "scipy", "pebble")


if __name__ == "__main__":
    main()
