"""Folders of anything, alone and with a table."""

import os

import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.sources import Quarantined, SourceCase, from_name, list_folder
from mame_lib.errors import InputError
from tests.data.miniatures import breast, rectangle, write_dicom

HEADER = "file,patient,view,laterality,density,vendor,finding,split,xmin,ymin,xmax,ymax,mask\n"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root, **options):
    entries = list(list_folder(root, **options))
    cases = {entry.key: entry for entry in entries if isinstance(entry, SourceCase)}
    return cases, {entry.key: entry.reason for entry in entries if isinstance(entry, Quarantined)}


def with_table(root, text, **columns):
    path = root / "table.csv"
    path.write_text(text)
    return listed(root, table=path, columns=columns)


@pytest.mark.parametrize(
    "name, patient, view, side",
    [
        ("P102_R_DM_MLO.jpg", "p102", "MLO", "R"),
        ("nyu_1_L_CC.png", "nyu_1", "CC", "L"),
        ("1_LCC.png", "1", "CC", "L"),
        ("7-left-mlo.png", "7", "MLO", "L"),
        ("p7/L_CC.png", "p7", "CC", "L"),
        ("p7/img_RMLO.png", "p7/img", "MLO", "R"),
        ("scan0031.png", "scan0031", None, None),
        ("5_L_R_CC_MLO.png", "5", None, None),
        ("success_r2.png", "./success_r2", None, None),
    ],
)
def test_file_names(tmp_path, name, patient, view, side):
    identity, attributes = from_name((tmp_path / name).relative_to(tmp_path))
    assert identity == patient.removeprefix("./")
    assert attributes == Attributes(view=view, laterality=side)


def test_files_in_order_and_nothing_that_is_no_mammogram(tmp_path):
    touch(tmp_path, "b/2_L_CC.png", "b/10.TIFF", "a.jpeg", "z/x.dcm", ".hidden.png", ".thumbs/x.png", "notes.txt")
    touch(tmp_path, "README", "x_mask.png", "list.csv")
    (tmp_path / "z" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "z" / "1.2.840.7").write_bytes(bytes(128) + b"DICM")
    cases, refused = listed(tmp_path)
    assert list(cases) == ["a.jpeg", "b/10.TIFF", "b/2_L_CC.png", "z/1.2.840.7", "z/IM0001", "z/x.dcm"]
    assert refused == {"x_mask.png": "it is named a mask, so it is no mammogram"}
    assert cases["b/2_L_CC.png"] == SourceCase(
        "b/2_L_CC.png", tmp_path / "b" / "2_L_CC.png", "2", Attributes(view="CC", laterality="L")
    )


def test_the_header_of_a_dicom_file_knows_better_than_its_name(tmp_path):
    touch(tmp_path, "P7_L_CC.dcm")
    assert listed(tmp_path)[0]["P7_L_CC.dcm"] == SourceCase("P7_L_CC.dcm", tmp_path / "P7_L_CC.dcm")


@pytest.mark.parametrize(
    "image, mask",
    [
        ("images/P1_L_CC.png", "masks/P1_L_CC.jpg"),
        ("set/Images/P1_L_CC.png", "set/Mask/P1_L_CC.png"),
        ("images/train/P1_L_CC.dcm", "masks/train/P1_L_CC.png"),
        ("image/P1_L_CC.png", "mask/P1_L_CC.dcm"),
        ("P1_L_CC.png", "masks/P1_L_CC.png"),
    ],
)
def test_masks_in_a_parallel_folder(tmp_path, image, mask):
    touch(tmp_path, image, mask)
    cases, refused = listed(tmp_path)
    assert list(cases) == [image] and not refused
    assert cases[image].masks == (tmp_path / mask,) and cases[image].attributes.finding == "lesion"


def test_masks_that_belong_to_no_image_are_reported_once_a_folder(tmp_path):
    touch(tmp_path, "a/images/1.png", "a/masks/1.png", "a/masks/2.png", "a/masks/3.png", "a/masks/notes.txt")
    touch(tmp_path, "b/images/1.png", "b/other/1.png", "b/other/masks/2.png", "b/other/masks/.hidden.png")
    touch(tmp_path, "c/train/masks/1.png", "c/images/1.png")
    cases, refused = listed(tmp_path)
    assert {key for key, case in cases.items() if case.masks} == {"a/images/1.png"}
    assert refused == {
        "a/masks": "2 of its 3 masks belong to no image",
        "b/other/masks": "a folder of masks, not of mammograms",
        "c/train/masks": "a folder of masks, not of mammograms",
    }


def test_two_masks_of_one_image_are_both_used(tmp_path):
    touch(tmp_path, "images/1.png", "masks/1.png", "masks/1.tif")
    cases, refused = listed(tmp_path)
    assert len(cases["images/1.png"].masks) == 2 and not refused


def test_a_source_that_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list_folder(tmp_path / "nothing")
    touch(tmp_path, "a.png")
    with pytest.raises(InputError, match="not a folder"):
        list_folder(tmp_path / "a.png")
    with pytest.raises(InputError, match="without a table"):
        list_folder(tmp_path, columns={"file": "x"})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_reported(tmp_path):
    touch(tmp_path, "a.png")
    for name in ("closed", "masks"):
        (tmp_path / name).mkdir(mode=0)
    _, refused = listed(tmp_path)
    assert refused == {"closed": "the folder cannot be opened", "masks": "the folder cannot be opened"}


# ── With a table ──


def test_all_columns(tmp_path):
    touch(tmp_path, "x/a_L_CC.png", "x/b_L_CC.png", "x/c.dcm", "drawn/c1.png", "drawn/c2.png", "x/d.png")
    text = HEADER + (
        "x/a_L_CC.png,P1,MLO,R,C,HOLOGIC Inc.,healthy,train,,,,,\n"
        "b_L_CC,,,,2,GE,,test,10,20,30.5,40,\n"
        "b_L_CC.png,P2,,,BI-RADS B,,lesion,test,50,60,40,45,\n"
        "x\\b_L_CC.png,P2,,,,,lesion,test,50,60,40,45,\n"
        "x/c.dcm,,,,,,mass,,,,,,drawn/c1.png\n"
        "x/c.dcm,,,,,,1,,,,,,c2.png\n"
    )
    cases, refused = with_table(tmp_path, text)
    a, b, c = cases.values()
    assert a == SourceCase(
        "x/a_L_CC.png", tmp_path / "x/a_L_CC.png", "P1", Attributes("hologic", "MLO", None, "high", "R"), split="train"
    )
    assert b.attributes == Attributes(None, "CC", None, "low", "L", "lesion") and b.patient == "P2"
    assert b.boxes == ((10, 20, 30.5, 40), (40, 45, 50, 60)) and b.split == "test"
    assert c.masks == (tmp_path / "drawn/c1.png", tmp_path / "drawn/c2.png") and c.patient == ""
    assert c.attributes == Attributes(finding="lesion") and c.split is None
    assert refused == {"x/d.png": "the table does not name it"}


def test_columns_by_other_names(tmp_path):
    touch(tmp_path, "1.png")
    text = "ID,Woman,View,FILE\nx,Jane,CC,1\n"
    assert with_table(tmp_path, text)[0]["1.png"].patient == "1"  # our own names in any case
    case = with_table(tmp_path, text, patient="Woman")[0]["1.png"]
    assert case.patient == "Jane" and case.attributes.view == "CC"
    with pytest.raises(InputError, match="'name' is unknown; use file, patient"):
        with_table(tmp_path, text, name="Woman")
    with pytest.raises(InputError, match="has no column woman"):
        with_table(tmp_path, text, patient="woman")
    with pytest.raises(InputError, match="has no column file; name the one"):
        with_table(tmp_path, "name\n1\n")
    with pytest.raises(InputError, match="no column ymin, ymax"):
        with_table(tmp_path, "file,xmin,xmax\n1,2,3\n")
    with pytest.raises(InputError, match="two columns 'view'"):
        with_table(tmp_path, "file,view,view\n1,CC,MLO\n")


def test_rows_that_fit_no_file(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.png", "secret.txt")
    text = "file,view\n1.png,CC\n3.png,CC\n,CC\n../secret.txt,CC\n/b/2.png,CC\nc/2.png,CC\nb/1.png,CC\n2.png\n"
    cases, refused = with_table(tmp_path, text)
    assert list(cases) == ["b/1.png"]
    assert refused["table.csv, row 2"] == "its file fits 2 files"
    for row in (3, 4, 5, 6, 7):
        assert refused[f"table.csv, row {row}"] == "its file is not in the folder", row
    assert refused["table.csv, row 9"] == "it has 1 cells where the header has 2"
    assert refused["a/1.png"] == refused["b/2.png"] == "the table does not name it"


def test_absolute_paths_and_those_of_another_computer(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    cases, refused = with_table(tmp_path, f"file,view\n{tmp_path}/a/1.png,CC\n{tmp_path.name}/b/1.png,MLO\n")
    assert [case.attributes.view for case in cases.values()] == ["CC", "MLO"] and not refused
    cases, refused = with_table(tmp_path, "file,view\nC:\\data\\a\\1.png,CC\n")
    assert not cases and refused["table.csv, row 2"] == "its file is not in the folder"


@pytest.mark.parametrize(
    "rows, words",
    [
        ("1.png,,,,E,,,,,,,,", "row 2 of the table: its density is none of"),
        ("1.png,,,,A,,,,,,,,\n1.png,,,,B,,,,,,,,", "its rows disagree about its density"),
        ("1.png,,CC,,,,,,,,,,\n1.png,,MLO,,,,,,,,,,", "its rows disagree about its view"),
        ("1.png,P1,,,,,,,,,,,\n1.png,P2,,,,,,,,,,,", "its rows disagree about its patient"),
        ("1.png,,,,,,,train,,,,,\n1.png,,,,,,,test,,,,,", "its rows disagree about its split"),
        ("1.png,,ML,,,,,,,,,,", "its view is none of"),
        ("1.png,,,B,,,,,,,,,", "its laterality is none of"),
        ("1.png,,,,,,perhaps,,,,,,", "its finding is neither lesion nor healthy"),
        ("1.png,,,,,,,dev,,,,,", "its split is none of"),
        ("1.png,,,,,,,,1,2,3,,", "row 2 of the table: its box is no number"),
        ("1.png,,,,,,,,1,2,1,4,", "its box is empty"),
        ("1.png,,,,,,,,1,2,3,4,\n1.png,,,,,,,,1,2,x,4,", "row 3 of the table: its box is no number"),
        ("1.png,,,,,,healthy,,1,2,3,4,", "says that it is healthy, but a lesion is marked"),
        ("1.png,,,,,,healthy,,,,,,\n1.png,,,,,,lesion,,,,,,", "says that it is healthy, but a lesion is marked"),
        ("1.png,,,,,,,,,,,,no.png", "its mask is not in the folder"),
        ("1.png,,,,,,,,1,2,3,4,\n1.png,,", "row 3 of table.csv: it has 3 cells"),
    ],
)
def test_a_bad_row_refuses_its_file_and_no_other(tmp_path, rows, words):
    touch(tmp_path, "1.png", "2.png")
    cases, refused = with_table(tmp_path, HEADER + rows + "\n2.png,,,,,,,,,,,,\n")
    assert list(cases) == ["2.png"] and words in refused["1.png"]


def test_files_that_a_table_names_as_masks_are_no_mammograms(tmp_path):
    touch(tmp_path, "images/1.png", "images/2.png", "masks/1.png", "masks/9.png", "drawn/2.png")
    cases, refused = with_table(tmp_path, "file,mask\nimages/1.png,\nimages/2.png,masks/9.png\n")
    assert cases["images/1.png"].masks == (tmp_path / "masks/1.png",)  # the folder beside it, as without a table
    assert cases["images/2.png"].masks == (tmp_path / "masks/9.png",)
    assert refused == {"drawn/2.png": "the table does not name it"}
    cases, refused = with_table(tmp_path, "file,mask\nimages/2.png,drawn/2.png\n")
    assert list(cases) == ["images/2.png"]
    assert refused == {
        "images/1.png": "the table does not name it",
        "masks": "a folder of masks, not of mammograms",
    }


def test_a_healthy_image_with_a_mask_beside_it_is_a_contradiction(tmp_path):
    touch(tmp_path, "images/1.png", "masks/1.png")
    cases, refused = with_table(tmp_path, "file,finding\n1.png,normal\n")
    assert not cases and "healthy, but a lesion is marked" in refused["images/1.png"]


def test_a_patient_of_several_splits_goes_to_test_as_a_whole(tmp_path):
    touch(tmp_path, "1.png", "2.png", "3.png")
    cases, _ = with_table(tmp_path, "file,patient,split\n1,P1,train\n2,P1,test\n3,P2,train\n")
    assert [case.split for case in cases.values()] == ["test", "test", "train"]


def test_lesions_of_a_table_come_to_lie_in_the_square(tmp_path):
    from mame_lib.data.preparation import Options, prepare_case

    Image.fromarray(breast(top=255, right=True).astype("uint8")).save(tmp_path / "1.png")
    Image.fromarray(rectangle((60, 30, 80, 44))).save(tmp_path / "m.png")
    cases, _ = with_table(tmp_path, "file,xmin,ymin,xmax,ymax,mask\n1,70,50,200,70,\n1,,,,,m.png\n")
    item = prepare_case(cases["1.png"], Options(salt=b"x", size=96), "folder")
    assert item.boxes == ((0, 38, 26, 58), (16, 18, 36, 32)) and item.kept == (1.0, 1.0)
    pytest.importorskip("pydicom")
    write_dicom(tmp_path / "d.dcm", breast(), Manufacturer="SIEMENS", ViewPosition="CC")
    cases, _ = with_table(tmp_path, "file,density\nd.dcm,4\n")
    item = prepare_case(cases["d.dcm"], Options(salt=b"x", size=96), "folder")
    said = item.attributes
    assert (said.vendor, said.view, said.density) == ("siemens", "CC", "very high")
