"""VinDr-Mammo: every finding of an image, the quirks of its tables, and no row lost without a word."""

import time

import numpy as np
import pytest

from mame_lib.data.preparation import Options, prepare_case
from mame_lib.data.sources import Quarantined, SourceCase, list_vindr
from mame_lib.errors import InputError
from tests.data.miniatures import HEIGHT, VINDR_BOXES, WIDTH, md5, write_vindr

pytest.importorskip("pydicom")


@pytest.fixture
def vindr(tmp_path):
    return write_vindr(tmp_path / "1.0.0")


def listed(root, **options):
    entries = list(list_vindr(root, **options))
    cases = {entry.path.stem: entry for entry in entries if isinstance(entry, SourceCase)}
    return cases, {entry.key: entry.reason for entry in entries if isinstance(entry, Quarantined)}


def test_the_whole_miniature(vindr):
    cases, refused = listed(vindr.root)
    assert len(cases) == 12 and not refused
    for study in range(3):
        for side in "LR":
            for view in ("CC", "MLO"):
                name = f"{study} {side} {view}"
                case = cases[md5(name)]
                assert case.path.is_file() and case.key == f"images/{md5(f'study {study}')}/{md5(name)}.dicom"
                assert case.patient == md5(f"study {study}") and case.shape == (HEIGHT, WIDTH)
                assert case.split == ("test" if study == 2 else "train")
                assert case.boxes == tuple(tuple(map(float, box)) for _, box in VINDR_BOXES.get(name, ()))
                said = case.attributes
                assert (said.view, said.laterality) == (view, side)
                assert said.density == ("high", "low", "very high")[study]
                assert said.vendor == (None if study == 2 else "siemens")
                assert said.finding == ("lesion" if name in VINDR_BOXES else None)


def test_the_order_is_that_of_the_table(vindr):
    assert [case.path.stem for case in list_vindr(vindr.root)] == [row["image_id"] for row in vindr.breasts]


def test_findings_that_were_not_chosen_make_neither_healthy_nor_lesion(vindr):
    cases, refused = listed(vindr.root, findings=("Mass",))
    (key,) = refused
    assert md5("2 R MLO") in key and refused[key] == "findings other than mass"
    assert cases[md5("1 L MLO")].boxes == ((12.0, 42.0, 32.0, 62.0),)
    assert cases[md5("0 L CC")].attributes.finding is None
    with pytest.raises(InputError, match="'Masse' is unknown; use Mass"):
        list_vindr(vindr.root, findings=["Masse"])
    with pytest.raises(InputError, match="no finding is chosen"):
        list_vindr(vindr.root, findings=[])


def test_windows_line_ends_and_a_byte_order_mark(vindr):
    plain = listed(vindr.root)
    vindr.write(newline="\r\n", bom=True)
    assert listed(vindr.root) == plain


def test_metadata_may_be_missing_and_the_header_tells_the_vendor(vindr):
    (vindr.root / "metadata.csv").unlink()
    cases, _ = listed(vindr.root)
    assert all(case.attributes.vendor is None for case in cases.values())
    item = prepare_case(cases[md5("0 L CC")], Options(salt=b"x", size=64), "vindr")
    assert item.attributes.vendor == "siemens"


@pytest.mark.parametrize(
    "text, count",
    [
        ("['Mass']", 1),
        ("Mass", 1),
        ("['Mass' 'Asymmetry']", 1),  # as NumPy prints it
        ('["Mass", "Skin Thickening"]', 1),
        (" [ 'mass' , 'Asymmetry' ] ", 1),
    ],
)
def test_lists_of_categories_as_text(vindr, text, count):
    vindr.of("1 L CC")[0]["finding_categories"] = text
    vindr.write()
    cases, _ = listed(vindr.root)
    assert len(cases[md5("1 L CC")].boxes) == count


def bad_rows():
    """(what is done to the row of an image, which image, words of the reason)"""
    nan = dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), "nan")
    return [
        (nan, "1 L CC", "no box"),
        ({"xmax": ""}, "1 L CC", "no box"),
        ({"xmax": "inf"}, "1 L CC", "no number"),
        ({"xmax": "1e400"}, "1 L CC", "no number"),
        ({"xmin": "٣"}, "1 L CC", "no number"),
        ({"xmin": "30.5"}, "1 L CC", "box is empty"),
        ({"ymin": "500", "ymax": "510"}, "1 L CC", "wholly outside"),
        ({"finding_categories": "['Mass'"}, "1 L CC", None),
        ({"finding_categories": "[]"}, "1 L CC", "cannot be read"),
        ({"finding_categories": "['Mas']"}, "1 L CC", "cannot be read"),
        ({"finding_categories": "['Mass', Asymmetry]"}, "1 L CC", "cannot be read"),
        ({"finding_categories": "[" * 5000}, "1 L CC", "cannot be read"),
        ({"finding_categories": "['Mass', 'No Finding']"}, "1 L CC", "both a finding and no finding"),
        ({"finding_categories": "['No Finding']"}, "1 L CC", "no finding, but a box"),
        ({"laterality": "R"}, "1 L CC", "disagree about its laterality"),
        ({"breast_density": "DENSITY D"}, "1 L CC", "disagree about its breast_density"),
        ({"study_id": md5("study 0")}, "1 L CC", "disagree about its study_id"),
        ({"height": "120.0"}, "1 L CC", None),
    ]


@pytest.mark.parametrize("change, name, words", bad_rows())
def test_a_bad_finding_refuses_its_image_and_no_other(vindr, change, name, words):
    vindr.of(name)[0].update(change)
    vindr.write()
    cases, refused = listed(vindr.root)
    if words is None:
        assert len(cases) == 12 and not refused and cases[md5(name)].boxes
        return
    assert len(cases) == 11 and len(refused) == 1
    (key, reason), *_ = refused.items()
    assert key.endswith(f"{md5(name)}.dicom") and words in reason


@pytest.mark.parametrize(
    "change, words",
    [
        ({"view_position": "ML"}, "view"),
        ({"laterality": "B"}, "laterality"),
        ({"breast_density": "DENSITY E"}, "density"),
        ({"height": "-5"}, "height"),
        ({"width": "96.5"}, "width"),
        ({"split": ""}, "split"),
        ({"split": "dev"}, "split"),
        ({"image_id": "../../secret"}, "no plain name"),
        ({"study_id": ".."}, "no plain name"),
    ],
)
def test_a_bad_image_row(vindr, change, words):
    for row in (vindr.breasts[0], *vindr.of("0 L CC")):
        row.update(change)
    vindr.write()
    cases, refused = listed(vindr.root)
    assert len(cases) == 11 and len(refused) == 1
    assert words in next(iter(refused.values()))
    assert not any("secret" in key or ".." in key for key in refused)


def test_density_that_is_not_said_stays_unsaid(vindr):
    for row in (vindr.breasts[0], *vindr.of("0 L CC")):
        row["breast_density"] = ""
    vindr.write()
    assert listed(vindr.root)[0][md5("0 L CC")].attributes.density is None


def test_rows_that_fit_no_image_and_images_that_fit_no_row(vindr):
    vindr.findings.remove(vindr.of("0 R CC")[0])
    vindr.findings.append(vindr.findings[0] | {"image_id": md5("stranger")})
    vindr.breasts.append(dict(vindr.breasts[1]))  # the same twice does no harm
    vindr.breasts.append(vindr.breasts[3] | {"breast_density": "DENSITY A"})
    vindr.write()
    (vindr.root / "images" / md5("study 1") / f"{md5('1 R CC')}.dicom").unlink()
    cases, refused = listed(vindr.root)
    reasons = {key.split("/")[-1]: reason for key, reason in refused.items()}
    assert reasons == {
        f"finding_annotations.csv, row {len(vindr.findings) + 1}": "its image is not in breast-level_annotations.csv",
        f"{md5('0 R CC')}.dicom": "finding_annotations.csv says nothing of it",
        f"{md5('0 R MLO')}.dicom": "its rows disagree about its breast_density",
        f"{md5('1 R CC')}.dicom": "the file is missing",
    }
    assert len(cases) == 9


def test_a_study_in_both_splits_goes_to_test_as_a_whole(vindr):
    for row in (vindr.breasts[0], *vindr.of("0 L CC")):
        row["split"] = "test"
    vindr.write()
    cases, refused = listed(vindr.root)
    assert not refused
    assert {case.split for case in cases.values() if case.patient == md5("study 0")} == {"test"}
    assert {case.split for case in cases.values() if case.patient == md5("study 1")} == {"train"}


def test_a_row_with_too_few_cells_spoils_the_image_that_it_names(vindr):
    path = vindr.root / "finding_annotations.csv"
    lines = path.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if "Asymmetry" in line)  # second finding of an image
    lines[place] = ",".join(lines[place].split(",")[:6])
    path.write_text("\n".join(lines))
    cases, refused = listed(vindr.root)
    assert md5("1 L MLO") not in cases and len(cases) == 11 and len(refused) == 2
    assert all(f"row {place + 1}" in key + reason for key, reason in refused.items())


@pytest.mark.parametrize("name", ["breast-level_annotations.csv", "finding_annotations.csv"])
def test_a_table_that_is_missing_or_another(vindr, name):
    (vindr.root / name).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=rf"{name} has no column .*image_id"):
        list_vindr(vindr.root)
    (vindr.root / name).write_text("")
    with pytest.raises(InputError, match="is empty"):
        list_vindr(vindr.root)
    (vindr.root / name).unlink()
    with pytest.raises(InputError, match=rf"{name} does not exist"):
        list_vindr(vindr.root)


def test_prepared_boxes_lie_on_the_lesion(vindr):
    cases, _ = listed(vindr.root)
    item = prepare_case(cases[md5("2 R CC")], Options(salt=b"x", size=96, fit="crop"), "vindr")
    # flipped to the left, clipped at the chest wall, 12 rows cut off at the top
    assert item.boxes == ((0, 38, 26, 58),) and item.kept == (1.0,)
    assert item.lesion[40:50, 5:20].all() and not item.lesion[60:].any()
    assert item.split == "test" and item.attributes.finding == "lesion" and item.image.mean() > 10
    plain = prepare_case(cases[md5("2 L CC")], Options(salt=b"x", size=96), "vindr")
    assert plain.boxes == () and plain.lesion is None and np.abs(plain.image - 1.0 * item.image).mean() < 1


def test_four_times_the_rows_take_about_four_times_as_long(tmp_path):
    took = []
    for studies in (1250, 5000):
        root = tmp_path / str(studies)
        vindr = write_vindr(root, studies=studies, pixels=False)
        assert len(vindr.breasts) == 4 * studies
        start = time.process_time()
        entries = list(list_vindr(root))
        took.append(time.process_time() - start)
        assert len(entries) == 4 * studies and {entry.reason for entry in entries} == {"the file is missing"}
    assert took[1] < 8 * took[0]  # a search of the table in each row would take 16 times as long
