"""A made image as DICOM: Digital Mammography, FOR PRESENTATION, that nobody can take for a patient's.

Not one field looks like a scanner's or a person's: the patient is called Synthetic, the maker is this library, the
image type is DERIVED and SECONDARY (made after, and not by, an examination), and the derivation names model, sentence
and seed. UIDs are a function of the content. The attribute Synthetic Data (0008,001C) is left out: it is so new that
validators in use (`dciodvfy` of Debian 12) call it an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mame_lib import __version__
from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import NOTICE, save_dicom
from mame_lib.data.looks import LOOKS

if TYPE_CHECKING:
    from mame_lib.synthesize.studio import Made

BITS = 8  # as many as the model makes; more would be invented


def save_synthetic(path: Path, made: Made, weights: dict[str, str]) -> Path:
    """Write the image, hung as the side that was asked for: a right breast is mirrored.

    The pixel spacing is that of the phantom's field of view, for the look that is seen. What the sentence leaves open
    but the standard wants (the view) is what was measured. Raises `InputError` as `data.dicom_export.save_dicom`.
    """
    pixels = made.image.pixels.astype(np.float64) / 255
    asked, measured = made.attributes, made.measured
    side = asked.laterality or "L"
    return save_dicom(
        path,
        pixels[:, ::-1] if side == "R" else pixels,
        # without the vendor, which would go into Manufacturer
        attributes=Attributes(view=asked.view or measured.view, laterality=side, density=asked.density),
        spacing_mm=LOOKS[asked.vendor or measured.vendor].side_mm / len(pixels),
        patient=f"SYNTHETIC-{made.breast.seed}-{made.plan.name}",
        bits=BITS,
        fields=_said(made, weights),
    )


def _said(made: Made, weights: dict[str, str]) -> dict[str, Any]:
    """DICOM keywords that say what the image is and where it comes from."""
    breast, lesion = made.breast, made.lesion
    story = (
        f"Synthetic. Made by the diffusion model {breast.model} ({weights['model']}) from the sentence "
        f"'{breast.prompt}', seed {breast.seed}, image {breast.index}, draw {breast.draw}, {breast.steps} steps, "
        f"guidance {breast.guidance_scale:g}."
    )
    if lesion is not None:
        x0, y0, x1, y1 = lesion.box
        story += (
            f" Lesion by {lesion.model} ({weights['inpainter']}) from the sentence '{lesion.prompt}', seed "
            f"{lesion.seed}, in the box {x0},{y0},{x1},{y1} of the image as it faces left."
        )
    return {
        "ImageType": ["DERIVED", "SECONDARY"],
        "PatientName": f"Synthetic^Image {made.plan.name}",
        "PatientComments": NOTICE,
        "Manufacturer": "mame_lib",
        "ManufacturerModelName": "diffusion model, no scanner",
        "SoftwareVersions": __version__,
        "DetectorType": "",
        "DerivationDescription": story[:1024],
        "InstanceNumber": 1,
    }
