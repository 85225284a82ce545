"""Sources as a whole: what they promise alike, and the way of a folder into a data set."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import FINDINGS
from mame_lib.data.manifest import load
from mame_lib.data.preparation import Options, prepare_case
from mame_lib.data.prompts import FINDING_PROMPTS, LESION_PROMPT
from mame_lib.data.sources import SOURCES, Quarantined, SourceCase, list_folder, phantom_source
from mame_lib.data.store import prepare
from mame_lib.errors import InputError
from tests.data.miniatures import breast, write_cbis, write_dicom, write_omidb, write_vindr

REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms"


def write_folder(root):
    for name in ("P1_L_CC", "P1_R_MLO", "P2_L_CC"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(breast(right="_R_" in name)).save(root / f"{name}.png")
    (root / "x_mask.png").touch()


WRITERS = {"folder": write_folder, "vindr": write_vindr, "omidb": write_omidb, "cbis": write_cbis}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def source(request, tmp_path_factory):
    pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](root)
    return request.param, root


def test_every_source_keeps_its_contract(source):
    name, root = source
    entries = list(SOURCES[name](root))
    assert entries == list(SOURCES[name](root))  # the same order each time
    cases = [entry for entry in entries if isinstance(entry, SourceCase)]
    assert len({case.key for case in cases}) == len(cases) >= 3
    for case in cases:
        assert pickle.loads(pickle.dumps(case)) == case
        assert case.path == root / case.key and case.path.is_file()
        assert all(mask.is_file() for mask in case.masks)
        assert bool(case.boxes or case.masks) == (case.attributes.finding == "lesion")
        assert case.split in ("train", "test", None)
    for entry in entries:
        if isinstance(entry, Quarantined):
            assert entry.reason and "\n" not in entry.reason and str(root) not in entry.reason + entry.key


def test_every_source_prepares(source):
    name, root = source
    for case in SOURCES[name](root):
        if isinstance(case, SourceCase):
            item = prepare_case(case, Options(salt=b"x", size=64), name)
            assert not isinstance(item, Quarantined), item
            assert bool(item.boxes) == (case.attributes.finding == "lesion")
            assert (item.lesion is not None) == bool(item.boxes)


def test_listing_reads_no_pixels_and_needs_no_heavy_library():
    code = (
        "import sys, mame_lib.data.sources; "
        "print([name for name in ('torch', 'pydicom', 'scipy', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ── Phantoms ──


def test_phantom_source_says_findings():
    asked = {"lesions": 0.8, "lesion_area": (0.003, 0.03), "say_findings": True}
    items = list(phantom_source(40, size=64, seed=5, **asked))
    ill = [item for item in items if item.boxes]
    assert {item.attributes.finding for item in ill} == set(FINDINGS) - {"lesion"}
    own = [item for item in ill if item.prompt == FINDING_PROMPTS[item.attributes.finding]]
    assert all(item.prompt in (LESION_PROMPT, FINDING_PROMPTS[item.attributes.finding]) for item in ill)
    assert 0.2 < len(own) / len(ill) < 0.8  # every second one at random
    shares = [(x1 - x0) * (y1 - y0) / 64**2 for item in ill for x0, y0, x1, y1 in item.boxes]
    assert min(shares) > 0.001 and max(shares) < 0.045
    healthy = [item for item in items if not item.boxes]
    assert healthy and all(item.attributes.finding is None and "lesion" not in item.prompt for item in healthy)
    again = list(phantom_source(40, size=64, seed=5, **asked))
    assert all(np.array_equal(a.image, b.image) and a.prompt == b.prompt for a, b in zip(items, again, strict=True))
    for bad, reason in (
        ({"lesion_area": (0.0, 0.1)}, "must rise"),
        ({"lesion_area": (0.2, 0.1)}, "must rise"),
        ({"say_findings": True, "lesion_kind": "mass"}, "choose one"),
    ):
        with pytest.raises(InputError, match=reason):
            phantom_source(1, **bad)


def test_phantom_source():
    items = list(phantom_source(3, size=64, seed=5))
    again = list(phantom_source(3, size=64, seed=5))
    assert len({item.patient for item in items}) == 3
    for item, other in zip(items, again, strict=True):
        assert item.image.shape == (64, 64) and item.image.dtype == np.uint8
        assert np.array_equal(item.image, other.image) and item.prompt == other.prompt
        assert ("area" in item.prompt) == (item.attributes.vendor == "hologic")
        assert ("density" in item.prompt) == (item.attributes.vendor == "siemens")
        assert item.mask is not None and item.truth is not None
        assert item.truth["area_ratio"] == pytest.approx(item.mask.mean(), abs=1e-6)


@pytest.mark.parametrize(
    "arguments", [(0, 64, 0), (-1, 64, 0), (1, 63, 0), (1, 100, 0), (1, 4096, 0), (1, 64, -1)]
)
def test_phantom_source_refuses_at_once(arguments):
    with pytest.raises(InputError):
        phantom_source(*arguments)


# ── From a folder to a data set ──


def test_all_images_of_a_patient_have_one_pseudonym_that_depends_on_the_salt(tmp_path):
    write_folder(tmp_path)
    cases = [case for case in list_folder(tmp_path) if isinstance(case, SourceCase)]
    names = {
        salt: [prepare_case(case, Options(salt=salt, size=64), "folder").patient for case in cases]
        for salt in (b"x", b"y")
    }
    first, second, third = names[b"x"]
    assert first == second != third and "p1" not in first.lower()
    assert not set(names[b"x"]) & set(names[b"y"])


def test_no_trace_of_the_patient(tmp_path):
    pytest.importorskip("pydicom")
    secrets = {
        "PatientName": "Doe^Secret",
        "PatientID": "ID-4711",
        "PatientBirthDate": "19500102",
        "AccessionNumber": "ACC99",
        "InstitutionName": "Hospital of Nowhere",
        "StudyInstanceUID": "1.2.3.4.5.6.7",
        "SOPInstanceUID": "1.2.3.9.8.7",
    }
    source = tmp_path / "Secret Doe"
    for name in ("Doe_Secret_4711.dcm", "IM0001", "1.2.840.7"):
        fields = secrets | {"ViewPosition": "CC", "ImageLaterality": "R", "Manufacturer": "SIEMENS"}
        write_dicom(source / name, breast(right=True), **fields)
    Image.fromarray(breast()).save(source / "Smith_L_CC.png")
    (source / "Smith_bad.png").touch()
    table = tmp_path / "Doe.csv"
    table.write_text(
        "file,Name,view,density\nIM0001,Jane Doe,CC,B\n1.2.840.7,Jane Doe,CC,B\nDoe_Secret_4711,Jane Doe,CC,B\n"
        "Smith_L_CC,Mary Smith,CC,Smith\nSmith_gone,Mary Smith,CC,B\nSmith,Mary\n"
    )
    listed = list_folder(source, table=table, columns={"patient": "Name"})
    prepare(listed, tmp_path / "out", Options(salt=b"x", size=64), source="folder")
    manifest = load(tmp_path / "out")
    assert len(manifest.cases) == 3 and len({case.patient for case in manifest.cases}) == 1
    assert manifest.cases[0].attributes.vendor == "siemens" and len(manifest.info["quarantined"]) == 4
    words = [*secrets.values(), "Doe", "Secret", "4711", "IM0001", "Smith", "Jane", "Mary", str(source)]
    for path in (tmp_path / "out").rglob("*"):
        assert not any(word in path.name for word in words)
        if path.is_file():
            content = path.read_bytes()
            assert not any(word.encode() in content for word in words), path


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mammograms are not here")
def test_real_mammograms(tmp_path):
    entries = list(list_folder(REAL))
    assert all(isinstance(entry, SourceCase) for entry in entries) and len(entries) == 15
    folders = [entry.key.split("/")[0] for entry in entries]
    assert [folders.count(name) for name in ("cdd_cesm", "nyu", "openrem")] == [8, 2, 5]
    for case in entries:
        if case.key.startswith("openrem"):
            continue
        item = prepare_case(case, Options(salt=b"x", size=128, fit="pad"), "folder")
        assert not isinstance(item, Quarantined), item
        assert item.attributes.view and item.attributes.laterality and item.truth
        # pixels agree with the file names
        assert item.truth["flipped"] == (item.attributes.laterality == "R")
        assert item.image[:, :8].mean() > 15 and item.image[:, -8:].mean() < 20
        assert bool(item.boxes) == case.key.startswith("cdd_cesm")
        if item.lesion is not None:
            assert item.lesion.any() and item.image[item.lesion].mean() > item.image[item.mask].mean() * 0.8
