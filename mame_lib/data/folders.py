"""Writing a folder so that it is there whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mame_lib.errors import InputError


@contextmanager
def complete_or_nothing(root: Path) -> Iterator[Path]:
    """A hidden sibling of `root` that takes its place at the end, or vanishes if anything goes wrong."""
    root = root.absolute()
    made = [parent for parent in (root.parent, *root.parent.parents) if not parent.exists()]
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent))
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)  # mkdtemp makes it private
        replace_folder(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def aside_of(root: Path) -> Path:
    """Where `replace_folder` keeps the old folder while it works."""
    return root.with_name(f".{root.name}.old")


def replace_folder(partial: Path, root: Path) -> None:
    """Rename `partial` to `root`; an old folder is set aside as `.NAME.old` first and deleted last."""
    if root.is_dir() and any(root.iterdir()):
        aside = aside_of(root)
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(root, aside)
        try:
            os.replace(partial, root)
        except OSError:
            os.replace(aside, root)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        if root.is_dir():
            root.rmdir()  # Windows cannot rename onto an empty folder
        os.replace(partial, root)


@contextmanager
def locked(path: Path, command: str) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends (where it has such locks).

    command : whose lock it is, for the message, such as "mame prepare".

    Raises
    ------
    InputError
        If another process holds it.
    """
    with open(path, "w", encoding="utf-8") as stream:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another `{command}` is at work in {path.parent}; wait for it to end.") from error
        yield
