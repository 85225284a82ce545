"""CBIS-DDSM: masks found in a tree that the tables do not describe, and no patient in two splits."""

import shutil

import numpy as np
import pytest

from mame_lib.data.preparation import Options, prepare_case
from mame_lib.data.raster import read_mask
from mame_lib.data.sources import Quarantined, SourceCase, list_cbis
from mame_lib.errors import InputError
from tests.data.miniatures import CBIS_MASKS, breast, rectangle, write_cbis, write_film

pytest.importorskip("pydicom")

FILM = "Mass-Training_P_00001_LEFT_CC"


@pytest.fixture
def root(tmp_path):
    return write_cbis(tmp_path / "cbis")


def listed(root):
    entries = list(list_cbis(root))
    cases = {film_of(entry): entry for entry in entries if isinstance(entry, SourceCase)}
    return cases, {entry.key: entry.reason for entry in entries if isinstance(entry, Quarantined)}


def film_of(case):
    return next(part for part in case.path.parts if part.startswith(("Mass-", "Calc-")))


def folder_of(root, name):
    (path,) = root.rglob(name)
    return path


def test_the_whole_miniature(root):
    cases, refused = listed(root)
    assert not refused
    assert list(cases) == [
        FILM,
        "Mass-Training_P_00002_RIGHT_MLO",
        "Mass-Training_P_00003_LEFT_CC",
        "Calc-Training_P_00004_LEFT_MLO",
    ]
    said = {name: case.attributes for name, case in cases.items()}
    assert [a.density for a in said.values()] == ["low", None, "low", "high"]
    assert [a.laterality for a in said.values()] == ["L", "R", "L", "L"]
    assert [a.view for a in said.values()] == ["CC", "MLO", "CC", "MLO"]
    assert all(a.vendor is None and a.finding == "lesion" for a in said.values())
    assert [case.patient for case in cases.values()] == ["P_00001", "P_00002", "P_00003", "P_00004"]
    assert all(case.key == case.path.relative_to(root).as_posix() for case in cases.values())


def test_masks_are_told_from_crops_and_all_abnormalities_count(root):
    cases, _ = listed(root)
    for name, case in cases.items():
        of_film = [box for mask, box in CBIS_MASKS.items() if mask.split("_P_")[1].startswith(name.split("_P_")[1])]
        assert len(case.masks) == len(of_film)
        for path, (x0, y0, x1, y1) in zip(case.masks, of_film, strict=True):
            rows, columns = np.nonzero(read_mask(path))
            scale = 1.15 if "00002" in name else 1
            expected = np.array([x0, y0, x1, y1]) * scale
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(found - expected).max() <= 1.5
    assert {path.name for path in cases[FILM].masks} == {"1-1.dcm", "1-2.dcm"}  # in either order


def test_a_patient_of_both_sets_is_wholly_in_test(root):
    cases, _ = listed(root)
    assert [case.split for case in cases.values()] == ["train", "train", "test", "train"]


def test_one_film_in_both_collections_is_one_case(root):
    case = listed(root)[0]["Mass-Training_P_00003_LEFT_CC"]
    assert [path.parts[-4] for path in case.masks] == [
        "Mass-Training_P_00003_LEFT_CC_1",
        "Calc-Test_P_00003_LEFT_CC_1",
    ]
    write_film(next(folder_of(root, "Calc-Test_P_00003_LEFT_CC").rglob("*.dcm")), breast(130, 100))
    cases, refused = listed(root)  # scanned another time: each with its own lesion, both in test
    assert len(cases) == 5 and not refused
    assert {case.split for case in cases.values() if case.patient == "P_00003"} == {"test"}
    assert len(cases["Calc-Test_P_00003_LEFT_CC"].masks) == 1


def test_prepared_lesions_lie_where_they_were_drawn(root):
    cases, _ = listed(root)
    boxes = {name: prepare_case(case, Options(salt=b"x", size=96), "cbis").boxes for name, case in cases.items()}
    assert boxes[FILM] == ((10, 28, 30, 48), (20, 58, 36, 74))  # the crop cuts 12 rows at the top
    assert boxes["Mass-Training_P_00002_RIGHT_MLO"] == ((16, 38, 36, 58),)  # rescaled, and turned to the left


def test_tables_of_one_collection_are_enough_wherever_they_lie(root):
    (root / "tables").mkdir()
    for path in root.glob("*.csv"):
        if path.name.startswith("calc"):
            path.unlink()
        else:
            path.rename(root / "tables" / path.name)
    cases, refused = listed(root)
    assert next(iter(cases)) == FILM and len(cases) == 3 and not refused


def test_the_download_may_match_the_table_after_all(root):
    """An older tool made the folders that the tables name; then a second file does no harm."""
    folder = folder_of(root, FILM)
    shutil.rmtree(folder)
    inner = folder / "1.3.6.1.4.1.9590.100.1.2.1" / "1.3.6.1.4.1.9590.100.1.2.2"
    write_film(inner / "000000.dcm", breast())
    write_film(inner / "000009.dcm", breast(130))
    cases, _ = listed(root)
    assert cases[FILM].path.name == "000000.dcm"
    write_film(inner / "000000.dcm", breast()).rename(inner / "000008.dcm")
    cases, refused = listed(root)
    assert FILM not in cases and "exactly one readable image" in refused[FILM]


def test_missing_and_damaged_files(root):
    shutil.rmtree(folder_of(root, "Mass-Training_P_00002_RIGHT_MLO"))
    next(folder_of(root, "Calc-Training_P_00004_LEFT_MLO").rglob("*.dcm")).write_bytes(b"no DICOM")
    for path in folder_of(root, f"{FILM}_2").rglob("*.dcm"):
        write_film(path, rectangle((0, 0, 5, 5), 16, 16))  # two crops
    cases, refused = listed(root)
    assert list(cases) == ["Mass-Training_P_00003_LEFT_CC"]
    reasons = {key.split("/")[2] if "/" in key else key: reason for key, reason in refused.items()}
    assert reasons == {
        FILM: "the mask of one of its abnormalities is missing",
        "Mass-Training_P_00002_RIGHT_MLO": "its folder is missing, or does not hold exactly one readable image",
        "Calc-Training_P_00004_LEFT_MLO": "its folder is missing, or does not hold exactly one readable image",
    }


def test_of_two_files_of_the_size_of_the_film_the_8_bit_one_is_the_mask(root):
    folder = folder_of(root, f"{FILM}_1")
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        write_film(path, rectangle((1, 1, 90, 110)) if number else breast())
    assert listed(root)[0][FILM].masks[0].name == "1-2.dcm"


@pytest.mark.parametrize(
    "old, new, words",
    [
        (",2,LEFT,CC,", ",5,LEFT,CC,", "density"),
        (",2,LEFT,CC,2", ",3,LEFT,CC,2", "disagree about its density"),
        (",LEFT,CC,2", ",RIGHT,CC,2", "another patient, side or view"),
        (",LEFT,CC,2", ",LEFT,ML,2", "view"),
        (",LEFT,CC,2", ",,CC,2", "not said"),
        (f"{FILM}/1", "../../etc/passwd/1", "name of a case"),
    ],
)
def test_a_bad_row_refuses_its_film_and_no_other(root, old, new, words):
    path = root / "mass_case_description_train_set.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    cases, refused = listed(root)
    assert any(words in reason for reason in refused.values())
    assert len(cases) == 3 and FILM not in cases
    assert not any("passwd" in key for key in refused)


def test_a_row_with_too_few_cells_refuses_its_film(root):
    path = root / "mass_case_description_train_set.csv"
    path.write_text(path.read_text().replace("BENIGN_WITHOUT_CALLBACK,", "", 1))
    cases, refused = listed(root)
    assert len(cases) == 3 and FILM not in cases
    assert refused["mass_case_description_train_set.csv, row 2"] == "it has 10 cells where the header has 11"
    assert refused[FILM].startswith("row 2 of mass_case_description_train_set.csv: it has 10 cells")


def test_folders_without_tables(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list_cbis(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no table such as mass_case_description_train_set\.csv"):
        list_cbis(tmp_path)
    (tmp_path / "mass_case_description_test_set.csv").write_text("patient_id,image view\n")
    with pytest.raises(InputError, match="has no column left or right breast"):
        list_cbis(tmp_path)
