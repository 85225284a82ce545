"""Where images come from: procedural phantoms, or one of several layouts of real mammograms.

A source of real images lists what it has, from names and tables alone: each image is a `SourceCase`, and what
cannot be used a `Quarantined` with the reason. `preparation.prepare_case` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.data.sources.cbis import list_cbis
from mame_lib.data.sources.folder import from_name, list_folder
from mame_lib.data.sources.omidb import list_omidb
from mame_lib.data.sources.phantom import phantom_source
from mame_lib.data.sources.vindr import list_vindr

SOURCES: dict[str, Callable[..., Iterator[SourceCase | Quarantined]]] = {
    "folder": list_folder,
    "vindr": list_vindr,
    "omidb": list_omidb,
    "cbis": list_cbis,
}

__all__ = [
    "SOURCES",
    "Quarantined",
    "SourceCase",
    "from_name",
    "list_cbis",
    "list_folder",
    "list_omidb",
    "list_vindr",
    "phantom_source",
]
