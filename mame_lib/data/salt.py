"""The secret that pseudonyms depend on: one for this computer, made once, never part of a data set."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mame_lib.errors import InputError


def salt_path() -> Path:
    """`$XDG_CONFIG_HOME/mame/salt`, usually `~/.config/mame/salt`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mame" / "salt"


def local_salt() -> bytes:
    """This user's salt, 64 hex digits; made the first time, readable by this user only.

    With it the same patient has the same pseudonym in every data set made here, so that splits agree, and
    nobody who has only the data sets can test a guessed name.

    Raises
    ------
    InputError
        If the file cannot be read or made, or holds something else.
    """
    path = salt_path()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(32))
            os.replace(partial, path)
        salt = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"{path} cannot be used ({error.strerror}); give a secret word with --salt.") from error
    if len(salt) < 32:
        raise InputError(f"{path} is damaged; remove it, or give a secret word with --salt.")
    return salt
