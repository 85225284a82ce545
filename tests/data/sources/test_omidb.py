"""OMI-DB: all marks of an image, and healthy only where the client is."""

import json

import pytest

from mame_lib.data.preparation import Options, prepare_case
from mame_lib.data.sources import Quarantined, SourceCase, list_omidb
from mame_lib.data.sources.omidb import status_of
from mame_lib.data.sources.tables import RowError
from mame_lib.errors import InputError
from tests.data.miniatures import HEIGHT, WIDTH, breast, mark, opinion, write_dicom, write_header, write_omidb

pytest.importorskip("pydicom")


@pytest.fixture
def root(tmp_path):
    return write_omidb(tmp_path / "sharing")


def listed(root):
    entries = list(list_omidb(root))
    cases = {entry.path.stem: entry for entry in entries if isinstance(entry, SourceCase)}
    return cases, {entry.key: entry.reason for entry in entries if isinstance(entry, Quarantined)}


def change(path, edit):
    """Load a JSON file, let `edit` change it, and store it."""
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_the_whole_miniature(root):
    cases, refused = listed(root)
    assert list(cases) == ["1.2.1.1", "1.2.1.2", "1.2.2.1"]
    for name, side, view in (("1.2.1.1", "L", "CC"), ("1.2.1.2", "R", "MLO"), ("1.2.2.1", "L", "CC")):
        case = cases[name]
        said = case.attributes
        assert (said.vendor, said.view, said.laterality) == ("hologic", view, side)
        assert case.path.is_file() and case.shape == (HEIGHT, WIDTH) and case.split is None
        assert case.patient == case.key.split("/")[1]
    assert cases["1.2.1.1"].boxes == () and cases["1.2.1.1"].attributes.finding is None
    assert cases["1.2.2.1"].boxes == ((10.0, 40.0, 30.0, 60.0), (20.0, 70.0, 40.0, 80.0))
    assert cases["1.2.2.1"].attributes.finding == "lesion"
    assert refused == {
        "images/demd2/1.2.2/1.2.2.2.dcm": "neither healthy nor marked: malignant client",
        "images/demd3/1.2.3/1.2.3.1.dcm": "neither healthy nor marked: interval cancer client",
        "images/optm4/1.2.4/1.2.4.1.dcm": "neither healthy nor marked: benign client",
        "images/optm5/1.2.5/1.2.5.1.dcm": "neither healthy nor marked: suspicious client",
    }


@pytest.mark.parametrize(
    "episodes, status",
    [
        ([{"SCREENING": opinion("Malignant")}], "Normal"),  # a screening opinion is no diagnosis
        ([{"BIOPSYWIDE": opinion("Benign")}, {"SURGERY": opinion(None, "Malignant")}], "Malignant"),
        ([{"SURGERY": opinion("OM")}, {"EpisodeType": "Interval case"}], "Interval Cancer"),
        ([{"BIOPSYFINE": opinion("OU", "Normal")}], "Uncertain"),
        ([{"SURGERY": None, "BIOPSYWIDE": [], "EpisodeType": None}], "Normal"),
        ([{"SURGERY": {"left_opinion": ["Malignant"]}}], "Normal"),
    ],
)
def test_status_of_a_client(episodes, status):
    assert status_of({"ClientID": "demd1", **dict(zip("123", episodes, strict=False))}) == status


def test_a_client_without_episodes_has_no_status():
    with pytest.raises(RowError, match="no episode"):
        status_of({"ClientID": "demd1", "1": None})


def test_without_screening_records_marks_still_count(root):
    for client in ("demd1", "demd2"):
        (root / "data" / client / f"nbss_{client}.json").unlink()
    cases, refused = listed(root)
    assert list(cases) == ["1.2.2.1"]
    reason = refused["images/demd1/1.2.1/1.2.1.1.dcm"]
    assert reason == "neither healthy nor marked: the nbss file is missing, so its client's status is unknown"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"a": 1e', "\x00", '{"STUDIES": 3}'])
def test_damaged_records_refuse_the_client_and_the_rest_goes_on(root, content):
    (root / "data" / "demd1" / "imagedb_demd1.json").write_text(content)
    cases, refused = listed(root)
    assert list(cases) == ["1.2.2.1"]
    assert "damaged" in refused["data/demd1"] or "list no image" in refused["data/demd1"]


@pytest.mark.parametrize(
    "marks, words",
    [
        ([1], "marks cannot be read"),
        ({"1": None}, "marks cannot be read"),
        ({"1": mark(10, 40, 30, 60), "2": {"MarkID": 2}}, "box is no number"),
        ({"1": mark(10, 40, 10, 60)}, "box is empty"),
        ({"1": mark(WIDTH, 40, WIDTH + 10, 60)}, "wholly outside"),
        ({"1": mark(10, 40, 30, 60) | {"X1": None}}, "box is no number"),
        ({"1": mark(10, 40, 30, 60) | {"X1": True}}, "box is no number"),
        ({"1": mark(10, 40, 30, 60) | {"X1": 1e999}}, "box is no number"),
    ],
)
def test_a_mark_that_cannot_be_read_refuses_its_image(root, marks, words):
    def edit(values):
        values["STUDIES"]["1.2.2"]["1.2.2.9"]["1.2.2.1"] = marks

    change(root / "data" / "demd2" / "imagedb_demd2.json", edit)
    cases, refused = listed(root)
    assert list(cases) == ["1.2.1.1", "1.2.1.2"]
    assert words in refused["images/demd2/1.2.2/1.2.2.1.dcm"]


def test_marks_of_an_image_in_two_series_are_all_used(root):
    def edit(values):
        values["STUDIES"]["1.2.2"]["1.2.2.8"] = {"1.2.2.1": {"13": mark(50, 40, 55, 60)}}

    change(root / "data" / "demd2" / "imagedb_demd2.json", edit)
    assert len(listed(root)[0]["1.2.2.1"].boxes) == 3


@pytest.mark.parametrize(
    "tag, value, words",
    [
        ("00080068", {"vr": "CS", "Value": ["FOR PROCESSING"]}, "not FOR PRESENTATION"),
        ("00080068", {"vr": "CS"}, "not FOR PRESENTATION"),
        ("00185101", {"vr": "CS", "Value": ["XCCL"]}, "view"),
        ("00200062", {"vr": "CS", "Value": ["B"]}, "laterality"),
    ],
)
def test_headers_that_refuse(root, tag, value, words):
    change(root / "data" / "demd1" / "1.2.1" / "1.2.1.1.json", lambda header: header.update({tag: value}))
    cases, refused = listed(root)
    assert "1.2.1.1" not in cases and words in refused["images/demd1/1.2.1/1.2.1.1.dcm"]


@pytest.mark.parametrize("value", [None, 7, [], {"Value": []}, {"Value": [None]}, {"Value": {"a": 1}}])
def test_a_header_that_says_nothing_leaves_it_unsaid(root, value):
    def edit(header):
        header.update(dict.fromkeys(("00080070", "00185101", "00200062", "00280010"), value))

    change(root / "data" / "demd1" / "1.2.1" / "1.2.1.1.json", edit)
    case = listed(root)[0]["1.2.1.1"]
    assert case.attributes.to_dict() == {} and case.shape is None


def test_missing_files(root):
    (root / "images" / "demd1" / "1.2.1" / "1.2.1.1.dcm").unlink()
    (root / "data" / "demd1" / "1.2.1" / "1.2.1.2.json").unlink()
    (root / "data" / "demd2" / "imagedb_demd2.json").unlink()
    (root / "data" / "demd9").mkdir()
    cases, refused = listed(root)
    assert not cases
    assert refused["images/demd1/1.2.1/1.2.1.1.dcm"] == "the file is missing"
    assert refused["images/demd1/1.2.1/1.2.1.2.dcm"] == "its header file is missing"
    assert refused["data/demd2"] == refused["data/demd9"] == "the imagedb file is missing"


def test_records_do_not_lead_out_of_the_folder(root):
    def edit(values):
        values["STUDIES"]["../../../etc"] = {"1.2": {"1.2": None}}
        values["STUDIES"]["1.2.1"]["1.2.1.9"]["../passwd"] = None

    before = listed(root)
    change(root / "data" / "demd1" / "imagedb_demd1.json", edit)
    assert listed(root) == before


def test_a_folder_that_is_no_database(tmp_path):
    with pytest.raises(InputError, match="no folder 'data'"):
        list_omidb(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="no folder 'images'"):
        list_omidb(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="holds no client"):
        list_omidb(tmp_path)


def test_another_image_than_the_marks_were_drawn_on_is_refused(root):
    options = Options(salt=b"x", size=96)
    case = listed(root)[0]["1.2.2.1"]
    assert prepare_case(case, options, "omidb").boxes == ((10, 28, 30, 48), (20, 58, 40, 68))
    write_dicom(case.path, breast(HEIGHT + 10), ViewPosition="CC")
    assert "annotations belong to 96 x 120" in prepare_case(case, options, "omidb").reason


def test_capitals_and_long_header_names(root):
    folder = root / "data" / "optm4"
    assert {path.name for path in folder.iterdir()} >= {"NBSS_optm4.json", "IMAGEDB_optm4.json"}
    change(folder / "NBSS_optm4.json", lambda values: values.update({"1": {"EpisodeType": "R"}}))
    assert "1.2.4.1" in listed(root)[0]
    image = root / "images" / "optm4" / "1.2.4" / "1.2.4.1.dcm"
    write_dicom(image, breast(), PresentationIntentType="FOR PROCESSING")
    write_header(folder / "1.2.4" / "1.2.4.1.dcm.json", image)
    assert listed(root)[1]["images/optm4/1.2.4/1.2.4.1.dcm"] == "it is not FOR PRESENTATION"
