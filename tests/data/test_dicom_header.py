"""View, side, maker, and each reason to refuse, from headers without a file."""

import pytest

from mame_lib.data import dicom_header
from mame_lib.data.case import Attributes
from mame_lib.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def code(value, **fields):
    item = Dataset()
    item.CodeValue = value
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def header(**fields):
    """A plain mammogram; a field given as None is left out."""
    dataset = Dataset()
    values = {
        "Modality": "MG",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageType": ["DERIVED", "PRIMARY"],
        "Manufacturer": "HOLOGIC, Inc.",
        "ViewPosition": "MLO",
        "ImageLaterality": "R",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": 4,
        "Columns": 3,
    } | fields
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    "text, word, vendor",
    [
        ("HOLOGIC, Inc.", "hologic", "hologic"),
        ("LORAD, A Hologic Company", "hologic", "hologic"),
        ("Lorad", "hologic", "hologic"),
        ("SIEMENS", "siemens", "siemens"),
        ("Siemens Healthineers", "siemens", "siemens"),
        ("GE MEDICAL SYSTEMS", "ge", None),
        ("GE Healthcare", "ge", None),
        ("IMS GIOTTO S.p.A.", "giotto", None),
        ("IMS s.r.l.", "giotto", None),
        ("Planmed Oy", "planmed", None),
        ("FUJIFILM Corporation", "fujifilm", None),
        ("Imagine GmbH", "other", None),
        ("Doe^Jane", "other", None),
        ("", "", None),
    ],
)
def test_maker(text, word, vendor):
    dataset = header(Manufacturer=text)
    assert dicom_header.maker(dataset) == word and dicom_header.attributes(dataset).vendor == vendor


def test_codes_are_those_of_the_standard():
    from pydicom.sr._cid_dict import cid_concepts
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    def known(cid):
        numbers = {number for name in cid_concepts[cid]["SCT"] for number in concepts["SCT"][name]}
        return {(mapping["SCT"][number], number) for number in numbers}

    views = {codes[:2] for codes in dicom_header._VIEW_CODES.values()}
    assert views == known(4014)
    listed = [codes[at : at + 2] for codes in dicom_header._MODIFIER_CODES.values() for at in range(0, len(codes), 2)]
    assert {tuple(pair) for pair in listed} | {("R-40AB3", "442581004")} == known(4015)  # nipple in profile passes


@pytest.mark.parametrize(
    "position, codes, view",
    [
        ("CC", (), "CC"),
        ("mlo ", (), "MLO"),
        ("RCC", (), "CC"),
        ("L-MLO", (), "MLO"),
        ("LMO", (), "LMO"),
        ("RL", (), "RL"),
        (None, ("R-10242",), "CC"),
        (None, ("399368009",), "MLO"),
        (None, ("Y-X1770",), "XCCL"),
        ("CC", ("R-10242",), "CC"),
        ("cranio-caudal", ("399162004",), "CC"),
        ("AT", ("R-10226",), "AT"),
        ("CC", ("R-1024A",), "XCCL"),
        ("MLO", ("what",), "MLO"),
        ("SIDEWAYS", (), "unknown"),
        (None, (), None),
        ("", (), None),
    ],
)
def test_view(position, codes, view):
    dataset = header(ViewPosition=position, ViewCodeSequence=[code(value) for value in codes])
    assert dicom_header.view(dataset) == view
    assert dicom_header.attributes(dataset).view == (view if view in ("CC", "MLO") else None)


def test_two_views_at_once():
    dataset = header(ViewPosition="MLO", ViewCodeSequence=[code("R-10242")])
    with pytest.raises(InputError, match="contradicts itself: view MLO in words, CC in code"):
        dicom_header.refuse(dataset)


FRAME = Dataset()
FRAME.FrameAnatomySequence = [Dataset()]
FRAME.FrameAnatomySequence[0].FrameLaterality = "L"


@pytest.mark.parametrize(
    "fields, side",
    [
        ({"ImageLaterality": "L"}, "L"),
        ({"ImageLaterality": "B"}, None),
        ({"ImageLaterality": "", "Laterality": "r"}, "R"),
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"SharedFunctionalGroupsSequence": [FRAME]}, "L"),
        ({"AnatomicRegionSequence": [code("T-04020")]}, "R"),
        ({"AnatomicRegionSequence": [code("80248007")]}, "L"),
        ({"AnatomicRegionSequence": [code("T-04000", AnatomicRegionModifierSequence=[code("G-A100")])]}, "R"),
        ({"AnatomicRegionSequence": [code("T-04020"), code("T-04030")]}, None),
        ({"PatientOrientation": ["A", "R"]}, "L"),
        ({"PatientOrientation": ["P", "FL"]}, "R"),
        ({"PatientOrientation": ["P", "R"]}, "L"),  # a mirrored image stays that of a left breast
        ({"PatientOrientation": ["R", "P"]}, None),
        ({"PatientOrientation": ["A", "F"]}, None),
        ({}, None),
    ],
)
def test_laterality(fields, side):
    assert dicom_header.laterality(header(**{"ImageLaterality": None} | fields)) == side


def modified(value, top=False):
    item = [code(value)]
    return {"ViewModifierCodeSequence": item} if top else {
        "ViewCodeSequence": [code("R-10226", ViewModifierCodeSequence=item)]
    }  # fmt: skip


REFUSED = [
    ({"Modality": "CT", "SOPClassUID": None}, r"not a mammogram \(modality CT\)"),
    ({"Modality": "DOE", "SOPClassUID": None}, r"not a mammogram \(modality unknown\)"),
    ({"Modality": None, "SOPClassUID": None, "ViewPosition": None}, "modality not stated"),
    ({"Modality": "CR", "SOPClassUID": None, "ViewPosition": "PA"}, r"not a mammogram \(modality CR\)"),
    ({"QualityControlImage": "YES"}, "test object"),
    ({"ViewPosition": "FLATFIELD"}, "test object"),
    ({"SeriesDescription": "ACR Phantom"}, "test object"),
    ({"AnatomicRegionSequence": [code("706342009")]}, "test object"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1", "PresentationIntentType": None}, "FOR PROCESSING"),
    ({"ViewPosition": None, "ViewCodeSequence": [code("G-8310")]}, "specimen"),
    ({"SeriesDescription": "Specimen radiograph"}, "specimen"),
    ({"ImageType": ["DERIVED", "PRIMARY", "", "STEREO_MINUS"]}, "stereotactic or biopsy"),
    ({"ProtocolName": "STEREO"}, "stereotactic or biopsy"),
    ({"SeriesDescription": "L CC Biopsy"}, "stereotactic or biopsy"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, "tomosynthesis"),
    ({"NumberOfFrames": 15}, "tomosynthesis"),
    ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, "computed from tomosynthesis"),
    ({"SeriesDescription": "R CC C-View"}, "computed from tomosynthesis"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, "projection or slice of tomosynthesis"),
    ({"ImageType": ["DERIVED", "PRIMARY", "RECOMBINED"]}, "contrast-enhanced"),
    ({"ImageType": ["DERIVED", "PRIMARY", "", "SUBTRACTION"]}, "contrast-enhanced"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "", "HIGH_ENERGY"]}, "contrast-enhanced"),
    ({"BreastImplantPresent": "YES"}, "with an implant"),
    (modified("R-102D5"), "implant-displaced"),
    (modified("399209000", top=True), "implant-displaced"),
    (modified("R-102D6"), "magnification view"),
    (modified("399055006"), "spot compression"),
    (modified("R-102D3"), "rolled view"),
    (modified("399161006"), "cleavage"),
    ({"EstimatedRadiographicMagnificationFactor": 1.5}, "magnification view"),
    ({"PaddleDescription": "10CM SPOT"}, "spot compression or magnification"),
    ({"PartialView": "YES"}, "partial view"),
    ({"PartialViewCodeSequence": [code("x")]}, "partial view"),
    *(({"ViewPosition": view}, f"its view is {view}; CC or MLO") for view in ("ML", "LM", "XCCL", "FB", "AT", "LMO")),
    ({"ViewPosition": "DOE"}, "its view is none that mammography knows"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "interpretation is color"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "interpretation is color"),
    ({"PhotometricInterpretation": "DOE"}, "interpretation is unknown"),
    ({"PhotometricInterpretation": None}, "interpretation is not stated"),
    ({"PhotometricInterpretation": None, "Rows": None}, "a header alone"),
]


@pytest.mark.parametrize("fields, words", REFUSED)
def test_refusals(fields, words):
    with pytest.raises(InputError, match=words) as caught:
        dicom_header.refuse(header(**fields))
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and "DOE" not in text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ViewPosition": None, "ImageLaterality": None},
        {"ImageType": ["ORIGINAL", "PRIMARY", "", "LOW_ENERGY"]},
        {"EstimatedRadiographicMagnificationFactor": 1.073, "BreastImplantPresent": "NO", "PartialView": "NO"},
        {"SeriesDescription": "R CC post biopsy", "QualityControlImage": "NO", "NumberOfFrames": 1},
        modified("R-40AB3"),  # nipple in profile
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "MG"},  # secondary capture of a film
        {"Modality": "RG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "PresentationIntentType": None},
        {"Modality": None, "SOPClassUID": None, "BodyPartExamined": "BREAST", "ViewPosition": None},
        # What VinDr-Mammo's de-identification leaves
        {"SOPClassUID": None, "ImageType": None, "Manufacturer": "Planmed", "PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_plain_mammograms_pass(fields):
    dicom_header.refuse(header(**fields))


def test_raw_data_pass_when_asked():
    dataset = header(PresentationIntentType="FOR PROCESSING")
    dicom_header.refuse(dataset, for_processing=True)
    assert dicom_header.is_raw(dataset) and not dicom_header.is_raw(header())


def test_an_empty_header_says_nothing():
    assert dicom_header.attributes(Dataset()) == Attributes() and dicom_header.maker(Dataset()) == ""
