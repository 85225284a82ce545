"""The computer's own salt: made once, private, and never guessed at when it is damaged."""

import os
import stat

import pytest

from mame_lib.data.salt import local_salt, salt_path
from mame_lib.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_made_once_and_private(home):
    first = local_salt()
    assert len(first) == 64 and local_salt() == first
    assert os.listdir(salt_path().parent) == ["salt"]
    if os.name == "posix":
        assert stat.S_IMODE(salt_path().stat().st_mode) == 0o600


def test_another_computer_has_another(home, monkeypatch):
    first = local_salt()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    assert local_salt() != first


def test_damaged_or_impossible(home):
    local_salt()
    salt_path().write_text("short")
    with pytest.raises(InputError, match="is damaged"):
        local_salt()
    salt_path().unlink()
    salt_path().mkdir()
    with pytest.raises(InputError, match="--salt"):
        local_salt()
