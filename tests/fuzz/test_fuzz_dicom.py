"""Damaged DICOM files are read or refused with a reason, fast, and never take the caller down."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("pylibjpeg")
pytest.importorskip("jpeg_ls")

from mame_lib.cli import main
from mame_lib.data.manifest import load

PROGRAM = Path(__file__).with_name("mutate.py")
COUNT = int(os.environ.get("MAME_FUZZ_DICOM", "300"))
FIRST = int(os.environ.get("MAME_FUZZ_DICOM_SEED", "0"))


def run(first: int, stop: int, report: Path) -> list[dict]:
    """Outcomes of the seeds; a seed that ended its process is "crashed" or "slow", and a new one goes on."""
    outcomes: list[dict] = []
    while first < stop:
        report.unlink(missing_ok=True)
        child = subprocess.run(
            [sys.executable, str(PROGRAM), str(first), str(stop), str(report)], capture_output=True, check=False
        )
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        outcomes += [json.loads(line) for line in lines]
        first += len(lines)
        if first < stop:
            assert child.returncode < 0, child.stderr.decode(errors="replace")[-2000:]
            kind = "slow" if child.returncode == -signal.SIGALRM else "crashed"
            outcomes.append({"seed": first, "kind": kind, "reason": signal.Signals(-child.returncode).name})
            first += 1
    return outcomes


def test_damaged_files_are_read_or_refused(tmp_path):
    outcomes = run(FIRST, FIRST + COUNT, tmp_path / "report.jsonl")
    kinds = Counter(outcome["kind"] for outcome in outcomes)
    print(dict(kinds))
    for reason, count in Counter(o["reason"] for o in outcomes if o["kind"] == "refused").most_common():
        print(f"{count:6d}  {reason}")
    assert len(outcomes) == COUNT
    wrong = [outcome for outcome in outcomes if outcome["kind"] not in ("read", "refused")]
    assert not wrong, f"reproduce with mutate.damaged(seed): {wrong[:10]}"
    # The mutations reach both ends: some files survive, most do not, for many different reasons.
    assert kinds["read"] >= COUNT // 10 and kinds["refused"] >= COUNT // 3
    assert len({outcome["reason"] for outcome in outcomes}) >= 12


@pytest.mark.parametrize("seed", [54622])
def test_a_seed_that_once_crashed(seed, tmp_path):
    """54622: 8-bit JPEG lossless, two bits used by its header; GDCM ended the process."""
    assert [outcome["kind"] for outcome in run(seed, seed + 1, tmp_path / "report.jsonl")] == ["read"]


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_damaged_files_becomes_a_data_set(tmp_path, capsys):
    """The whole road: each file is either in the data set or in the list of the refused, and no name in either."""
    spec = importlib.util.spec_from_file_location("mutate", PROGRAM)
    mutate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutate)
    count = max(60, COUNT // 5)
    source = tmp_path / "source"
    source.mkdir()
    for seed in range(FIRST, FIRST + count):
        (source / f"{seed:06d}.dcm").write_bytes(mutate.damaged(seed))
    command = ["prepare", "folder", str(source), "--out", str(tmp_path / "out"), "--size", "64", "--salt", "w"]
    assert main([*command, "--workers", "2"]) == 0
    data = load(tmp_path / "out")
    refused = data.info["quarantined"]
    assert len(data.cases) + len(refused) == count and len(data.cases) > count // 10
    lost = [entry for entry in refused if "crashed" in entry["reason"] or "longer than" in entry["reason"]]
    assert not lost
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert mutate.SECRET.encode() not in written and mutate.SECRET not in "".join(capsys.readouterr())
