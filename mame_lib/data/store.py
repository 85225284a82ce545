"""`prepare`: from a source to a manifest folder, in parallel, and so that no kill can spoil it.

The work happens in a hidden sibling of the output, `.NAME.partial`. Each picture is written to a temporary name
and renamed, each finished case is one line of a journal there, and when all are done the folder takes its name.
A run that was killed finds the journal and does only what is missing; the result is the same to the byte. A run
on a complete data set adds what is new in the source and tries again what was refused; what is there stays as it
is, also if a table of the source has changed since (`overwrite` makes all anew).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mame_lib.data import manifest
from mame_lib.data.case import Case
from mame_lib.data.folders import aside_of, locked, replace_folder
from mame_lib.data.manifest import Manifest, Refused
from mame_lib.data.pool import Lost, each
from mame_lib.data.preparation import Options, case_id, prepare_case
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.errors import InputError

HEADER, JOURNAL, LOCK = "header.json", "journal.jsonl", ".lock"
Progress = Callable[[Iterator[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: the data set, the refused files by their paths in the source, and how many were new."""

    manifest: Manifest
    refused: list[Quarantined]
    new: int


@dataclass(frozen=True)
class _Done:
    """A line of the journal: a case, or why there is none; and the boxes that the frame lost."""

    id: str
    case: str | None = None
    reason: str | None = None
    dropped: tuple[str, ...] = ()

    def to_line(self) -> str:
        values = {"id": self.id, "case": self.case, "reason": self.reason, "dropped": self.dropped}
        return json.dumps(values, ensure_ascii=False) + "\n"


def prepare(
    cases: Iterable[SourceCase | Quarantined],
    out: str | Path,
    options: Options,
    *,
    source: str,
    settings: Mapping[str, Any] | None = None,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write the cases of a source into the manifest folder `out`; go on where an earlier run was cut off.

    source: name for dataset.json. settings: more to record, such as the source's own options. workers:
    processes; 0 works in this one, where a native decoder that crashes takes Python with it. (With processes, a
    script must be importable: keep the call under `if __name__ == "__main__"`.) progress: wraps the iterator
    of finished cases, given their number, such as a progress bar.

    Raises
    ------
    InputError
        If `out` holds something else, or an unfinished or complete run with other settings; if another process
        is at work on it; or if no case of the source can be used.
    """
    root = Path(out).absolute()
    header: dict[str, Any] = {"source": source, "settings": {**options.settings(), **(settings or {})}}
    _finish_interrupted_swap(root)
    known = _complete(root, header, overwrite)
    before = {case.id: case for case in known.cases} if known else {}
    by_id, refused = _by_id(_with_validation(list(cases)), options.salt)
    with _workshop(root, header, overwrite) as work:
        done = _read_journal(work)
        missing = [case for key, case in by_id.items() if key not in done and key not in before]
        _adopt(before, root, work)
        finished = each(partial(_store, work=work, options=options, source=source), missing, workers=workers)
        done |= _journaled(work, progress(finished, len(missing)) if progress else finished, options.salt)
        refused += [Quarantined(by_id[key].key, d.reason) for key, d in done.items() if d.reason and key in by_id]
        refused.sort(key=lambda entry: entry.key)
        new = sum(done[case_id(case.key, options.salt)].case is not None for case in missing)
        if known and not any(entry.case for entry in done.values()):
            shutil.rmtree(work)
            return Prepared(known, refused, 0)
        lost = [Refused(entry["id"], entry["reason"]) for entry in known.info["dropped_boxes"]] if known else []
        lost += [Refused(key, reason) for key in by_id if key in done for reason in done[key].dropped]
        cases_now = _in_order(list(by_id), before, done)
        if not cases_now:
            raise InputError(_nothing_usable(refused))
        hashed = [Refused(case_id(entry.key, options.salt), entry.reason) for entry in refused]
        _remove_strays(work, cases_now)
        manifest.write_tables(work, cases_now, refused=hashed, dropped=lost, **header)
        _tidy(work)
        replace_folder(work, root)
    return Prepared(manifest.load(root), refused, new)


def _with_validation(listed: list[SourceCase | Quarantined]) -> list[SourceCase | Quarantined]:
    """Where a source knows "train" and "test" only, the hash of the patient sets validation apart from "train"."""
    if any(isinstance(case, SourceCase) and case.split == "validation" for case in listed):
        return listed
    return [
        replace(case, split=None) if isinstance(case, SourceCase) and case.split == "train" else case
        for case in listed
    ]


def _by_id(
    listed: list[SourceCase | Quarantined], salt: bytes
) -> tuple[dict[str, SourceCase], list[Quarantined]]:
    """The cases by their ids, and what the source itself refused."""
    by_id: dict[str, SourceCase] = {}
    refused = [entry for entry in listed if isinstance(entry, Quarantined)]
    for case in listed:
        if isinstance(case, SourceCase) and by_id.setdefault(case_id(case.key, salt), case) is not case:
            refused.append(Quarantined(case.key, "the source lists it twice; the first entry counts"))
    return by_id, refused


def _store(case: SourceCase, *, work: Path, options: Options, source: str) -> _Done:
    """Prepare one case and store its pictures; runs in a worker."""
    item = prepare_case(case, options, source)
    name = case_id(case.key, options.salt)
    if isinstance(item, Quarantined):
        return _Done(name, reason=item.reason)
    return _Done(name, case=manifest.save(work, item, name).to_line(), dropped=item.dropped)


def _journaled(work: Path, finished: Iterable[tuple[SourceCase, _Done | Lost]], salt: bytes) -> dict[str, _Done]:
    """Write each case into the journal as it finishes; all of them by id."""
    done: dict[str, _Done] = {}
    with open(work / JOURNAL, "a", encoding="utf-8") as journal:
        for case, result in finished:
            entry = _Done(case_id(case.key, salt), reason=result.reason) if isinstance(result, Lost) else result
            done[entry.id] = entry
            journal.write(entry.to_line())
            journal.flush()
    return done


def _work_of(root: Path) -> Path:
    return root.with_name(f".{root.name}.partial")


def _finish_interrupted_swap(root: Path) -> None:
    """If a run was killed between its last file and its last rename, do those renames now."""
    work = _work_of(root)
    if manifest.is_manifest(work):
        _tidy(work)
        replace_folder(work, root)
    elif manifest.is_manifest(aside_of(root)) and not root.exists():
        os.replace(aside_of(root), root)
    if manifest.is_manifest(root):
        shutil.rmtree(aside_of(root), ignore_errors=True)


def _complete(root: Path, header: dict[str, Any], overwrite: bool) -> Manifest | None:
    """The complete data set at `root` that was made with the same settings, or None if there is none."""
    if overwrite or not manifest.is_manifest(root):
        manifest.refuse_existing(root, overwrite=overwrite)
        return None
    known = manifest.load(root)
    if difference := _difference({key: known.info.get(key) for key in header}, header):
        raise InputError(
            f"{root} was made with another {difference}; give that again, a new folder, or --overwrite."
        )
    return known


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first setting in which two headers differ, in words; empty if none does."""
    if one.get("source") != other.get("source"):
        return f"source ({one.get('source')})"
    first, second = dict(one.get("settings") or {}), json.loads(json.dumps(other.get("settings")))
    for key in [*second, *first]:
        if first.get(key) != second.get(key):
            return "salt" if key == "salt_fingerprint" else f"{key} ({first.get(key)})"
    return ""


@contextmanager
def _workshop(root: Path, header: dict[str, Any], overwrite: bool) -> Iterator[Path]:
    """The hidden folder where the data set grows: new, or that of a run that was cut off."""
    work = _work_of(root)
    if work.exists() and not overwrite:
        try:
            begun = json.loads((work / HEADER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = None  # killed before it had done anything
        if begun is not None and (difference := _difference(begun, header)):
            raise InputError(
                f"{work} holds an unfinished run with another {difference}; "
                "give that again to go on, or --overwrite to begin anew."
            )
        overwrite = begun is None
    made = [parent for parent in (root.parent, *root.parent.parents) if not parent.exists()]
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / LOCK, "mame prepare"):
        if overwrite:
            _empty(work)
        manifest.make_folders(work)
        for scrap in work.rglob("*.tmp"):
            scrap.unlink(missing_ok=True)
        begin = work / f"{HEADER}.tmp"
        begin.write_text(json.dumps(header), encoding="utf-8")
        os.replace(begin, work / HEADER)
        try:
            yield work
        except InputError:
            if work.exists() and not any(work.glob("images/*")):  # a mistake leaves nothing behind
                shutil.rmtree(work, ignore_errors=True)
                for parent in made:
                    if parent.is_dir() and not any(parent.iterdir()):
                        parent.rmdir()
            raise


def _empty(work: Path) -> None:
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _read_journal(work: Path) -> dict[str, _Done]:
    """What an earlier run finished, by id; a torn last line and a case whose picture is missing do not count."""
    path = work / JOURNAL
    done: dict[str, _Done] = {}
    if not path.exists():
        return done
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    with open(path, "r+b") as stream:
        stream.truncate(len(whole))
    for line in whole.decode("utf-8").splitlines():
        values = json.loads(line)
        entry = _Done(values["id"], values["case"], values["reason"], tuple(values["dropped"]))
        if entry.case is None or all((work / name).is_file() for name in _files(Case.from_line(entry.case))):
            done[entry.id] = entry
    return done


def _files(case: Case) -> list[str]:
    return [name for name in (case.image, case.mask, case.lesion) if name]


def _adopt(before: dict[str, Case], root: Path, work: Path) -> None:
    """Bring the pictures of the complete data set along, as links where the disk can."""
    for case in before.values():
        for name in _files(case):
            if not (work / name).exists():
                try:
                    os.link(root / name, work / name)
                except OSError:
                    shutil.copyfile(root / name, work / f"{name}.tmp")
                    os.replace(work / f"{name}.tmp", work / name)


def _in_order(listed: list[str], before: dict[str, Case], done: dict[str, _Done]) -> list[Case]:
    """All cases as the source lists them; those that it lists no longer come last."""
    cases: list[Case] = []
    for key in [*listed, *sorted(set(before) - set(listed))]:
        line = done[key].case if key in done else None
        if line is not None:
            cases.append(Case.from_line(line))
        elif key in before:
            cases.append(before[key])
    return cases


def _remove_strays(work: Path, cases: list[Case]) -> None:
    """Delete pictures that belong to no case: a worker that outlived its run may leave one."""
    wanted = {name for case in cases for name in _files(case)}
    for folder in manifest.FOLDERS:
        for path in (work / folder).iterdir():
            if f"{folder}/{path.name}" not in wanted:
                path.unlink()


def _tidy(work: Path) -> None:
    """Remove what belongs to the work and not to the data set."""
    for name in (JOURNAL, HEADER, LOCK):
        (work / name).unlink(missing_ok=True)


def _nothing_usable(refused: list[Quarantined]) -> str:
    if not refused:
        return "the source has no image, so no data set was written."
    first = refused[0]
    return f"no data set was written: all files were refused ({len(refused)}); {first.key}: {first.reason}"
