"""Each collection from its own layout to a data set, through the command line; and nobody's name in what is written."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from mame_lib.cli import main
from mame_lib.data.manifest import load
from mame_lib.data.sources import SOURCES, SourceCase
from tests.data import miniatures

pydicom = pytest.importorskip("pydicom")

SECRETS = ("Planted", "Zebra", "PID-98765", "19520229", "Old^Maiden", "221B Baker Street", "ACC-1122", "Dr^Who")
WRITERS = {
    "folder": lambda root: miniatures.write_vindr(root).root / "images",
    "vindr": lambda root: miniatures.write_vindr(root).root,
    "omidb": miniatures.write_omidb,
    "cbis": miniatures.write_cbis,
}


def prepare(source: str, root: Path, out: Path, *options: str) -> None:
    command = ["prepare", source, str(root), "--out", str(out), "--size", "64", "--workers", "1", "--salt", "word"]
    assert main([*command, *options]) == 0


def plant(root: Path) -> None:
    """Write a patient into the header of every DICOM file below `root`, private tags included."""
    for path in [path for path in root.rglob("*") if path.suffix in (".dcm", ".dicom")]:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "Planted^Zebra"
        dataset.PatientID = f"PID-98765-{dataset.get('PatientID', '')}"
        dataset.PatientBirthDate = "19520229"
        dataset.OtherPatientNames = "Old^Maiden"
        dataset.PatientAddress = "221B Baker Street"
        dataset.AccessionNumber = "ACC-1122"
        dataset.ReferringPhysicianName = "Dr^Who"
        dataset.add_new((0x0011, 0x0010), "LO", "PLANTED PRIVATE")
        dataset.add_new((0x0011, 0x1001), "LO", "Planted^Zebra")
        dataset.save_as(path)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore")
def test_a_collection_becomes_a_data_set_without_a_name(source: str, tmp_path: Path, capsys) -> None:
    root = WRITERS[source](tmp_path / "source")
    plant(root)
    broken = next(case.path for case in SOURCES[source](root) if isinstance(case, SourceCase))
    broken.write_bytes(broken.read_bytes()[:700])  # a damaged file is refused by a reason that names nobody
    prepare(source, root, tmp_path / "out", "--fit", "pad")
    shown = "".join(capsys.readouterr())
    data = load(tmp_path / "out")
    assert len(data.cases) >= 2 and data.info["quarantined"] and data.info["source"] == source
    cases = [case for case in SOURCES[source](root) if isinstance(case, SourceCase)]
    identifiers = {case.path.stem for case in cases} | {case.patient for case in cases}
    names = {*SECRETS, *(name for name in identifiers if len(name) > 5), str(root)}
    for path in (tmp_path / "out").rglob("*"):
        for secret in names:
            assert secret not in path.name
            assert path.is_dir() or secret.encode() not in path.read_bytes(), f"{secret} in {path.name}"
    for secret in SECRETS:
        assert secret not in shown
    splits = defaultdict(set)
    for case in data.cases:
        splits[case.patient].add(case.split)
        assert case.image == f"images/{case.id}.png" and len(case.id) == 16
        assert (case.lesion is not None) == bool(case.boxes) == (case.attributes.finding == "lesion")
        assert case.lesion is None or data.lesion(case).any()
    assert all(len(where) == 1 for where in splits.values())


def test_vindr_keeps_its_split_merges_findings_and_takes_a_choice(tmp_path: Path) -> None:
    made = miniatures.write_vindr(tmp_path / "1.0.0")
    prepare("vindr", made.root, tmp_path / "all")
    everything = load(tmp_path / "all")
    assert {case.split for case in everything.cases} >= {"train", "test"}
    assert sum(case.attributes.finding == "lesion" for case in everything.cases) >= 2
    assert max(len(case.boxes) for case in everything.cases) >= 2
    prepare("vindr", made.root, tmp_path / "masses", "--findings", "Mass")
    fewer = load(tmp_path / "masses")
    assert len(fewer.cases) < len(everything.cases)
    assert any("findings other" in entry["reason"] for entry in fewer.info["quarantined"])


def test_real_files_are_prepared_or_refused_with_the_right_reason(tmp_path: Path) -> None:
    real = Path(__file__).resolve().parents[2] / "shared" / "mammograms"
    if not real.is_dir():
        pytest.skip("the real files are not here")
    prepare("folder", real, tmp_path / "out", "--log", str(tmp_path / "log.tsv"))
    data = load(tmp_path / "out")
    assert len(data.cases) == 10 and len({case.patient for case in data.cases}) == 9
    lesions = [case for case in data.cases if case.boxes]
    assert len(lesions) == 8 and all(case.attributes.view for case in data.cases)
    for case in data.cases:
        assert 0.2 < case.truth["area_ratio"] < 0.8  # type: ignore[index]
    with open(tmp_path / "log.tsv", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    reasons = {Path(key).stem.removeprefix("openrem_MG-Im-"): reason for key, reason in rows}
    for name in ("GE-SenDS-scaled", "GE_Seno_1_ForProcessing"):
        assert "FOR PROCESSING" in reasons.pop(name)
    for name in ("GE_Seno_1_ForPresentation", "GE_Seno_2_ForPresentation"):
        assert "stereotactic" in reasons.pop(name)
    assert "test object" in reasons.pop("Hologic-PropProj") and not reasons


def test_imagefolder_can_read_the_lines(tmp_path: Path) -> None:
    root = miniatures.write_cbis(tmp_path / "cbis")
    prepare("cbis", root, tmp_path / "out")
    for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines():
        values = json.loads(line)
        files = [values[key] for key in values if key.endswith("file_name") and values[key]]
        assert files and all((tmp_path / "out" / file).is_file() for file in files) and values["prompt"]
