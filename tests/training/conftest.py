"""Small data sets of phantoms, written once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 phantoms, of which some are held out."""
    folder = tmp_path_factory.mktemp("training") / "phantoms"
    manifest.write(folder, phantom_source(24, 128, 3), source="phantom", settings={})
    return folder


@pytest.fixture(scope="session")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 phantoms with one lesion each."""
    folder = tmp_path_factory.mktemp("training") / "lesions"
    manifest.write(folder, phantom_source(24, 128, 3, lesions=1.0), source="phantom", settings={})
    return folder
