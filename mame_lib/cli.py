"""`mame`: make or prepare data, train, generate, and check the installation, from the command line.

Only the standard library is imported before the arguments are known to be good, so that help and mistakes
answer at once. A mistake is one sentence on stderr and exit status 2, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from mame_lib import audit_command, inpaint_command, readers_command, sweep_command, synthesize_command
from mame_lib.arguments import build_parser
from mame_lib.errors import InputError
from mame_lib.terminal import check_out, image_names, note_grammar, quiet_libraries, with_bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 good, 1 doctor or a check found a fault, 2 a mistake, 130 interrupted."""
    try:
        with _stop_cleanly():
            arguments = build_parser().parse_args(argv)
            return _COMMANDS[arguments.command](arguments)
    except InputError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(f"the Python package {error.name!r} is missing; `mame doctor` says how to install it.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.")
    except KeyboardInterrupt:
        print("mame: interrupted", file=sys.stderr)
        return 130
    except SystemExit as request:  # --help, --version, a termination signal
        return request.code if isinstance(request.code, int) else 0


def _fail(sentence: str) -> int:
    print("mame: error: " + " ".join(sentence.split()), file=sys.stderr)
    return 2


@contextmanager
def _stop_cleanly() -> Iterator[None]:
    """Let a polite kill (SIGTERM) unwind the stack, so that half-written folders are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _phantom(arguments: argparse.Namespace) -> int:
    check_out(arguments.out)
    from mame_lib.data.manifest import refuse_existing, write
    from mame_lib.data.sources import phantom_source

    names = ("count", "size", "seed", "vendor", "priors", "lesions", "lesion_kind", "lesion_area", "say_findings")
    settings = {name: getattr(arguments, name) for name in names}
    items = phantom_source(**settings)
    refuse_existing(arguments.out, overwrite=arguments.overwrite)  # before the progress bar appears
    drawn = with_bar(items, arguments.count, "image")
    manifest = write(arguments.out, drawn, source="phantom", settings=settings, overwrite=arguments.overwrite)
    print(f"{arguments.out}: {len(manifest.cases)} images ({_splits(manifest)})")
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    check_out(arguments.out)
    _check_log(arguments.log, arguments.out)
    if arguments.folder.resolve() in (arguments.out.resolve(), *arguments.out.resolve().parents):
        raise InputError(f"{arguments.out} lies inside the source {arguments.folder}; write the data set elsewhere.")
    from mame_lib.data.preparation import Options
    from mame_lib.data.salt import local_salt
    from mame_lib.data.sources import SOURCES
    from mame_lib.data.store import prepare

    asked = {"folder": ("table", "columns"), "vindr": ("findings",)}.get(arguments.source, ())
    extra = {name: value for name in asked if (value := getattr(arguments, name))}
    cases = SOURCES[arguments.source](arguments.folder, **extra)
    options = Options(
        salt=local_salt() if arguments.salt is None else arguments.salt.encode(),
        size=arguments.size,
        fit=arguments.fit,
        intensity=arguments.intensity,
        for_processing=arguments.for_processing,
    )
    # Not the paths of the source and its table: they may hold a name.
    settings = {name: value if name != "table" else True for name, value in extra.items()}
    try:
        prepared = prepare(
            cases,
            arguments.out,
            options,
            source=arguments.source,
            settings=settings,
            workers=arguments.workers or os.cpu_count() or 1,
            overwrite=arguments.overwrite,
            progress=lambda finished, total: with_bar(finished, total, "image"),
        )
    except (KeyboardInterrupt, SystemExit):
        print("mame: stopped; the same command goes on from here.", file=sys.stderr)
        raise
    return _report(prepared, arguments)


def _check_log(log: Path | None, out: Path) -> None:
    if log is not None and out.absolute() in log.absolute().parents:
        raise InputError(f"--log {log} names files by their paths; write it outside the data set {out}.")


def _report(prepared: Any, arguments: argparse.Namespace) -> int:
    """Counts, Table 1, and the refused files by their paths: on the screen and in the log, not in the data set."""
    from mame_lib.data.inspection import table_1

    print(f"{arguments.out}: {len(prepared.manifest.cases)} images ({_splits(prepared.manifest)}), {prepared.new} new")
    print(table_1(prepared.manifest))
    if dropped := len(prepared.manifest.info["dropped_boxes"]):
        print(f"{dropped} lesion boxes lie outside the frame and were left out (--fit pad keeps the whole image)")
    if prepared.refused:
        print(f"{len(prepared.refused)} refused, with reasons in {arguments.out / 'dataset.json'}:")
        for entry in prepared.refused[:10]:
            print(f"  {entry.key}: {entry.reason}")
        if len(prepared.refused) > 10:
            print(f"  and {len(prepared.refused) - 10} more; --log FILE lists them all")
    if arguments.log is not None:
        lines = (f"{entry.key}\t{entry.reason}\n" for entry in prepared.refused)
        arguments.log.write_text("".join(lines), encoding="utf-8")
    return 0


def _splits(manifest: Any) -> str:
    return ", ".join(f"{number} {name}" for name, number in manifest.info["counts"]["split"].items())


def _inspect(arguments: argparse.Namespace) -> int:
    from mame_lib.data.inspection import contact_sheet, summary
    from mame_lib.data.manifest import load

    data = load(arguments.data)
    folder = arguments.data.absolute()
    sheet = arguments.sheet or folder.with_name(f"{folder.name}-contact.png")
    check_out(sheet)
    print(summary(data))
    print(f"\ncontact sheet: {contact_sheet(data, sheet)}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from mame_lib.training.config import TrainConfig

    other = {"command", "config", "set", "plan"}
    given = {key: value for key, value in vars(arguments).items() if key not in other and value is not None}
    if arguments.plan is not None:
        return _plan(arguments, given)
    config = TrainConfig.read(arguments.config, arguments.set, **given)
    check_out(config.out)
    if not config.data.is_dir():
        raise InputError(f"the data folder {config.data} does not exist; `mame phantom` makes one.")
    quiet_libraries()
    from mame_lib.planner import check_room
    from mame_lib.training.loop import fit

    check_room(config)
    result = None
    main = os.environ.get("RANK", "0") == "0"
    with with_bar(None, config.steps, "step") if main else nullcontext() as bar:
        for result in fit(config):
            if bar is not None:
                bar.update(result.step - bar.n)  # a resumed run starts in the middle
                if result.step % max(1, config.log_every) == 0:  # reading the loss waits for the GPU
                    bar.set_postfix(loss=f"{result.loss:.4f}")
    if not main:
        return 0
    if result is None:
        print(f"{config.out} has all of its {config.steps} steps already; nothing was done.")
    else:
        print(f"{config.out}: step {result.step}, loss {result.loss:.4f}; model in {config.out / 'model'}")
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from mame_lib.evaluation.runs import curves, evolution, runs, table

    found = runs(arguments.folder)
    if arguments.out is not None:
        check_out(arguments.out / "curves.png")
    print(table(found), flush=True)
    for run in found:
        place = run.path if arguments.out is None else arguments.out / run.name
        for draw, name in ((curves, "curves.png"), (evolution, "evolution.png")):
            try:
                draw(run, place / name)
            except InputError as error:  # a damaged run must not hide the others
                print(f"mame: note: {error}", file=sys.stderr)
    return 0


def _plan(arguments: argparse.Namespace, given: dict[str, Any]) -> int:
    """Print the memory a run would need: on this machine, or on a GPU of the size that was asked about."""
    quiet_libraries()
    from mame_lib.planner import here
    from mame_lib.training.config import TrainConfig

    nowhere = {"data": Path("data"), "out": Path("run")}  # neither is touched
    print(here(TrainConfig.read(arguments.config, arguments.set, **nowhere | given), arguments.plan or None))
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    names = image_names(arguments.out, arguments.count, arguments.seed)
    check_out(names[0])
    quiet_libraries()
    from mame_lib.generation import Mame

    options: dict[str, Any] = {} if arguments.batch_size is None else {"batch_size": arguments.batch_size}
    interval = arguments.guidance_interval
    model = Mame.load(arguments.model)
    note_grammar(arguments.prompt)
    options |= dict(
        negative_prompt=arguments.negative_prompt,
        guidance_scale=arguments.guidance_scale,
        guidance_rescale=arguments.guidance_rescale,
        guidance_interval=None if interval is None else tuple(interval),
        steps=arguments.steps,
        seed=arguments.seed,
        count=arguments.count,
        quality=arguments.quality,
        most_tries=arguments.most_tries,
    )
    if arguments.lesion is not None:
        return inpaint_command.generate(arguments, model, names, options)
    images = model.stream(arguments.prompt, **options)
    redrawn = bad = 0
    for image, name in zip(with_bar(images, arguments.count, "image"), names, strict=True):
        print(image.save(name))
        redrawn += image.redrawn > 0
        bad += (image.badness or 0) > 1
    if arguments.quality:
        rest = f"; {bad} of them failed every time, the least bad was kept" if bad else ""
        print(f"redrew {redrawn} of {arguments.count}{rest}")
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from mame_lib.models.released import table

    print(table())
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    check_out(arguments.out)
    quiet_libraries()
    from mame_lib.models.convert import DTYPES, convert

    print(convert(arguments.source, arguments.out, DTYPES[arguments.dtype]))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from mame_lib.doctor import doctor

    return 0 if doctor() else 1


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "phantom": _phantom,
    "prepare": _prepare,
    "inspect": _inspect,
    "train": _train,
    "runs": _runs,
    "generate": _generate,
    "sweep": sweep_command.run,
    "synthesize": synthesize_command.run,
    "inpaint": inpaint_command.run,
    "audit": audit_command.run,
    "readers": readers_command.run,
    "models": _models,
    "convert": _convert,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
