"""The command line: a mistake is one sentence and leaves nothing behind, help is quick."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mame_lib
from mame_lib.arguments import FITS, INTENSITIES, PRIORS, SOURCE_HELP
from mame_lib.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def here(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))  # not this computer's salt
    (tmp_path / "file").write_text("x")
    (tmp_path / "blank").write_text("# nothing\n\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "COMMAND"),
        ("fly", "'fly'"),
        ("phantom", "--out"),
        ("phantom --out a --count 0", "--count: 0 is out of range"),
        ("phantom --out a --count -3", "--count"),
        ("phantom --out a --count many", "'many' is not a whole number"),
        ("phantom --out a --count 1e3", "'1e3' is not a whole number"),
        ("phantom --out a --size 100", "multiple of 8"),
        ("phantom --out a --size 8", "--size: 8 is out of range"),
        ("phantom --out a --seed -1", "--seed: -1 is out of range"),
        ("phantom --out a --seed 9223372036854775808", "--seed"),
        ("phantom --out full --count 1", "full is not empty"),
        ("phantom --out full --count 1 --overwrite", "not a data set"),
        ("phantom --out file --count 1", "file exists and is not a folder"),
        ("phantom --out file/a --count 1", "is not a folder"),
        ("phantom --out file/a/b --count 1", "is not a folder"),
        ("phantom --out a --colour red", "--colour"),
        ("phantom --out a --priors rare", "'rare'"),
        ("phantom --out a --lesions 2", "not between 0 and 1"),
        ("prepare", "SOURCE"),
        ("prepare folder", "SRC"),
        ("prepare folder nothing --out a", "nothing does not exist"),
        ("prepare folder full --out full/data", "inside the source"),
        ("prepare folder . --out a", "inside the source"),
        ("prepare folder file --out a", "not a folder"),
        ("prepare folder empty --out a", "no image"),
        ("prepare folder empty --out a/b/c", "no image"),
        ("prepare vindr empty --out a", "breast-level_annotations.csv"),
        ("prepare omidb empty --out a", "data"),
        ("prepare cbis empty --out a", "case_description"),
        ("prepare pacs empty --out a", "'pacs'"),
        ("prepare folder empty --out a --fit stretch", "'stretch'"),
        ("prepare folder empty --out a --intensity 4096", "'4096'"),
        ("prepare folder empty --out a --workers 0", "--workers: 0 is out of range"),
        ("prepare folder empty --out a --columns patient", "NAME=COLUMN"),
        ("prepare folder empty --out a --table nothing.csv", "nothing.csv"),
        ("prepare vindr empty --out a --findings ,", "--findings"),
        ("prepare folder empty --out a --log a/log.tsv", "outside the data set"),
        ("inspect nothing", "nothing does not exist"),
        ("inspect empty", "no metadata.jsonl"),
        ("train --data nothing --out r --steps 1", "nothing does not exist"),
        ("train --data empty --out r --steps 0", "--steps: 0 is out of range"),
        ("train --out r", "the setting data is missing"),
        ("train --data empty --out r --set steps", "steps is not TOML"),
        ("train --data empty --out r --set stops=3", "'stops' is not a setting"),
        ("train --data empty --out r --set steps=many", "steps is 'many', which is not of its kind"),
        ("train --data empty --out r --set precision=float8", "precision is float8"),
        ("train --data empty --out r --config none.toml", "cannot read the settings none.toml"),
        ("train --data empty --out r --preset huge", "preset 'huge' is unknown"),
        (
            "train --data empty --out r --steps 5 --learning-rate nan",
            "--learning-rate: nan is not a finite number",
        ),
        (
            "train --data empty --out r --steps 5 --learning-rate 0",
            "--learning-rate: 0 is not greater than 0",
        ),
        ("train --data empty --out r --steps 5 --batch-size 0", "--batch-size"),
        ("generate", "PROMPT"),
        ("generate mammogram", "--out"),
        ("generate mammogram --out a.png --guidance-scale nan", "nan is not a finite number"),
        ("generate mammogram --out a.png --guidance-scale inf", "inf is not a finite number"),
        ("generate mammogram --out a.png --guidance-scale big", "'big' is not a number"),
        ("generate mammogram --out a.png --guidance-interval 1", "expected 2 arguments"),
        ("generate mammogram --out a.png --guidance-interval -1 5", "-1 is out of range"),
        ("generate mammogram --out a.png --steps 0", "--steps"),
        ("generate mammogram --out a.png --steps 1001", "--steps"),
        ("generate mammogram --out a.png --count -1", "--count"),
        ("generate mammogram --out a.png --batch-size 0", "--batch-size"),
        ("generate mammogram --out a.jpg", "must end in .png"),
        ("generate mammogram --out file", "file is a file"),
        ("generate mammogram --out file/a.png", "is not a folder"),
        ("sweep", "--out"),
        ("sweep --out a", "there is no prompt"),
        ("sweep --prompt x", "say with --out"),
        ("sweep --prompt x --out file", "file exists and is not a folder"),
        ("sweep --prompt x --out file/a", "is not a folder"),
        ("sweep --prompt x --out full", "full is not empty and holds no sweep"),
        ("sweep --prompts nothing --out a", "cannot read the prompts in nothing"),
        ("sweep --prompts full --out a", "cannot read the prompts in full"),
        ("sweep --prompts blank --out a", "no sentence in blank"),
        ("sweep --prompt x --out a --guidance 1,nan", "nan is not a finite number"),
        ("sweep --prompt x --out a --guidance 1,,4", "'' is not a number"),
        ("sweep --prompt x --out a --steps 10,0", "0 is out of range"),
        ("sweep --prompt x --out a --sampler ddim,magic", "'magic' is unknown"),
        ("sweep --prompt x --out a --seeds 5:5", "5:5 is not a range"),
        ("sweep --prompt x --out a --seeds 0:9999999", "not a range of 1 to 1,000,000 seeds"),
        ("sweep --prompt x --out a --seeds 3:", "'' is not a whole number"),
        ("sweep --prompt x --out a --seeds 0:1000000 --count 2", "at most 1,000,000"),
        ("sweep --prompt x --out a --model none", "there is no model 'none'"),
        ("sweep --prompt x --out a --model inpaint", "inpainting model"),
        ("sweep empty", "give its folder and a number"),
        ("sweep --verify 2", "give its folder and a number"),
        ("sweep empty --verify 0", "--verify"),
        ("sweep empty --verify 2", "no sweep in empty"),
        ("sweep nothing --verify 2", "nothing is not a folder"),
    ],
)
def test_a_mistake_is_one_sentence(here, capsys, line, words):
    before = tree(here)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mame: error: ") and err.count("\n") == 1 and words in err
    assert not out and tree(here) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_parent(here, capsys):
    (here / "locked").mkdir(mode=0o500)
    assert main(["phantom", "--count", "1", "--out", "locked/a"]) == 2
    assert "not writable" in capsys.readouterr().err


def test_phantom_with_lesions(here, capsys):
    command = ["phantom", "--count", "12", "--size", "64", "--lesions", "0.5", "--priors", "paper"]
    assert main([*command, "--out", "data"]) == 0
    cases = [json.loads(line) for line in (here / "data" / "metadata.jsonl").read_text().splitlines()]
    ill = [case for case in cases if case["attributes"].get("finding") == "lesion"]
    assert 1 <= len(ill) < 12 and all(len(case["boxes"]) == 1 and case["lesion_file_name"] for case in ill)
    assert all(case["prompt"] == "a mammogram with a lesion" for case in ill)


def test_phantom(here, capsys):
    command = ["phantom", "--count", "4", "--size", "64", "--out", "deep/down/data"]
    assert main(command) == 0
    assert "4 images" in capsys.readouterr().out
    info = json.loads((here / "deep/down/data/dataset.json").read_text())
    expected = {"count": 4, "size": 64, "seed": 0, "vendor": None, "priors": "uniform", "lesions": 0.0}
    expected |= {"lesion_kind": None, "lesion_area": None, "say_findings": False}
    assert info["settings"] == expected and info["cases"] == 4
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert tree(here / "deep") == sorted(
        ["down", "down/data", "down/data/dataset.json"]
        + [f"down/data/{kind}" for kind in ("images", "lesions", "masks")]
        + [f"down/data/{kind}/00000{k}.png" for kind in ("images", "masks") for k in range(4)]
        + ["down/data/metadata.jsonl"]
    )


@pytest.fixture
def clinic(here):
    """Three pictures of one patient and one damaged file."""
    y, x = np.mgrid[0:160, 0:120]
    breast = np.where(np.hypot((y - 80) / 60, x / 70) < 1, 180 - x, 0).astype(np.uint8)
    (here / "clinic").mkdir()
    for name in ("7_L_CC", "7_L_MLO", "7_R_CC"):
        pixels = breast[:, ::-1] if "_R_" in name else breast
        Image.fromarray(np.ascontiguousarray(pixels)).save(here / "clinic" / f"{name}.png")
    (here / "clinic" / "bad.png").touch()
    return here


def test_prepare_reports_what_it_refused(clinic, capsys):
    command = ["prepare", "folder", "clinic", "--out", "data", "--size", "64", "--workers", "1", "--log", "log.tsv"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "3 images" in out and "3 new" in out and "bad.png: it cannot be read" in out and not err
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("total")] == ["3"]
    text = (clinic / "data" / "dataset.json").read_text()
    assert "clinic" not in text and "bad.png" not in text and "it cannot be read" in text
    assert (clinic / "log.tsv").read_text().startswith("bad.png\tit cannot be read")
    before = tree(clinic)
    assert main(command) == 0
    assert "0 new" in capsys.readouterr().out and tree(clinic) == before
    assert main([*command, "--fit", "pad"]) == 2
    assert "fit (crop)" in capsys.readouterr().err
    assert main([*command, "--fit", "pad", "--overwrite"]) == 0


def test_prepare_takes_a_table(clinic, capsys):
    (clinic / "clinic" / "t.csv").write_text(
        "Image,birads,maker,xmin,ymin,xmax,ymax\n7_L_CC.png,C,SIEMENS AG,10,60,30,90\n7_L_MLO.png,B,Hologic,,,,\n"
    )
    columns = "file=Image,density=birads,vendor=maker"
    command = ["prepare", "folder", "clinic", "--table", "clinic/t.csv", "--columns", columns, "--out", "data"]
    assert main([*command, "--size", "64", "--workers", "1"]) == 0
    cases = [json.loads(line) for line in (clinic / "data" / "metadata.jsonl").read_text().splitlines()]
    by_view = {(c["attributes"].get("view"), c["attributes"].get("laterality")): c for c in cases}
    lesion = by_view["CC", "L"]
    assert lesion["boxes"] and lesion["lesion_file_name"] and lesion["attributes"]["density"] == "high"
    assert lesion["prompt"] == "a mammogram with a lesion" and lesion["attributes"]["vendor"] == "siemens"
    assert by_view["MLO", "L"]["attributes"]["density"] == "low"


def test_inspect(clinic, capsys):
    assert main(["prepare", "folder", "clinic", "--out", "data", "--size", "64", "--workers", "1"]) == 0
    capsys.readouterr()
    before = tree(clinic / "data")
    assert main(["inspect", "data"]) == 0
    out = capsys.readouterr().out
    assert "3 images of 1 patients" in out and "laterality" in out and "1 files refused" in out
    with Image.open(clinic / "data-contact.png") as sheet:
        assert sheet.width > 3 * 128
    assert tree(clinic / "data") == before
    assert main(["inspect", "data", "--sheet", "sheet.jpg"]) == 2


def fake_modules(monkeypatch, calls):
    """Stand-ins for the heavy modules, with their interface."""

    class Image1:
        redrawn, badness = 2, 1.5

        def save(self, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"png")
            return path

    class Mame:
        @classmethod
        def load(cls, name):
            calls.append(name)
            return cls()

        def stream(self, prompt, **options):
            calls.append((prompt, options))
            return (Image1() for _ in range(options["count"]))

    def fit(config):
        calls.append(config)
        for step in range(config.steps + 1):
            yield types.SimpleNamespace(step=step, loss=float("nan") if step == 0 else 0.5, model=None)

    generation = types.ModuleType("mame_lib.generation")
    generation.Mame = Mame  # type: ignore[attr-defined]
    loop = types.ModuleType("mame_lib.training.loop")
    loop.fit = fit  # type: ignore[attr-defined]
    for module in (generation, loop):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_generate_passes_everything_on(here, capsys, monkeypatch):
    calls = []
    fake_modules(monkeypatch, calls)
    prompt = "a siemens mammogram in MLO view with small area"
    options = (
        "--seed 7 --count 3 --steps 12 --guidance-scale 2.5 --guidance-rescale 0.7 --guidance-interval 200 800 "
        "--negative-prompt x --batch-size 2 --quality screen --most-tries 5 --out d/a.png"
    )
    assert main(["generate", prompt, "--model", "m", *options.split()]) == 0
    expected = {
        "negative_prompt": "x",
        "guidance_scale": 2.5,
        "guidance_rescale": 0.7,
        "guidance_interval": (200, 800),
        "steps": 12,
        "seed": 7,
        "count": 3,
        "batch_size": 2,
        "quality": "screen",
        "most_tries": 5,
    }
    assert calls == ["m", (prompt, expected)]
    out, err = capsys.readouterr()
    assert out.splitlines()[:3] == ["d/a.png", "d/a-1.png", "d/a-2.png"] and not err
    assert out.splitlines()[3:] == ["redrew 3 of 3; 3 of them failed every time, the least bad was kept"]
    assert tree(here / "d") == ["a-1.png", "a-2.png", "a.png"]


def test_generate_defaults_and_folder(here, capsys, monkeypatch):
    calls = []
    fake_modules(monkeypatch, calls)
    assert main(["generate", "a mammogram", "--out", "empty", "--seed", "3", "--count", "2"]) == 0
    assert calls[0] == "fused" and calls[1][1]["guidance_scale"] == 4.0 and calls[1][1]["steps"] == 24
    assert "batch_size" not in calls[1][1] and calls[1][1]["quality"] is None
    assert "redrew" not in capsys.readouterr().out
    assert tree(here / "empty") == ["seed-3-0.png", "seed-3-1.png"]


def test_a_prompt_outside_the_grammar_is_tried_with_one_note(here, capsys, monkeypatch):
    fake_modules(monkeypatch, [])
    assert main(["generate", "a purple mammogram", "--out", "a.png"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("mame: note: ") and err.count("\n") == 1 and "'purple'" in err
    assert (here / "a.png").exists()


def test_train_passes_everything_on(here, capsys, monkeypatch):
    calls = []
    fake_modules(monkeypatch, calls)
    options = "--steps 2 --batch-size 4 --learning-rate 1e-4 --seed 5 --validation-every 0"
    options += " --checkpoint-every 1 --resume --micro-batch-size 2 --method unet --set clip=0.5 --config run.toml"
    (here / "run.toml").write_text("steps = 9\nema_decay = 0.9\n")
    line = ["train", "--data", "empty", "--out", "run", "--prompt", "a mammogram", *options.split()]
    assert main(line) == 0
    (config,) = calls
    assert (config.steps, config.batch_size, config.learning_rate, config.seed) == (2, 4, 1e-4, 5)
    assert config.constant_prompt == "a mammogram" and config.resume and config.preset == "tiny"
    assert config.validation_every == 0 and config.checkpoint_every == 1
    assert (config.micro_batch_size, config.method, config.clip, config.ema_decay) == (2, "unet", 0.5, 0.9)
    out, err = capsys.readouterr()
    assert "step 2, loss 0.5000" in out and not err


@pytest.mark.parametrize(
    "error, status, words",
    [
        (PermissionError(13, "Permission denied", "/locked/x"), 2, "/locked/x: Permission denied."),
        (OSError(28, "No space left on device"), 2, "No space left on device."),
        (ModuleNotFoundError("no", name="torch"), 2, "'torch' is missing; `mame doctor`"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_failures_are_one_line_too(here, capsys, monkeypatch, error, status, words):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("mame_lib.data.sources.phantom_source", fail)
    assert main(["phantom", "--out", "a"]) == status
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (here / "a").exists()


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_help_and_version_are_quick_and_import_nothing_heavy():
    start = time.perf_counter()
    result = run("-m", "mame_lib", "--help")
    took = time.perf_counter() - start
    assert result.returncode == 0 and "generate" in result.stdout and not result.stderr
    assert took < 2  # 0.1 s on an idle machine
    code = "import sys, mame_lib.cli as c; c.main(['--help']); c.main(['generate', 'x', '--out', 'a.gif'])"
    code += "; bad = {'numpy', 'torch', 'PIL', 'scipy', 'tqdm'} & set(sys.modules); assert not bad, bad"
    assert run("-c", code).returncode == 0
    assert run("-m", "mame_lib", "--version").stdout == f"mame {mame_lib.__version__}\n"
    commands = ("phantom", "prepare", "prepare folder", "inspect", "train", "generate", "sweep", "doctor")
    for command in commands:
        assert main([*command.split(), "--help"]) == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "mame_lib", "phantom", "--count", "100000", "--size", "64"]
    command += ["--out", str(tmp_path / "a" / "data")]
    # a test run in the background inherits an ignored SIGINT; a person at a terminal does not
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=listen)
    deadline = time.monotonic() + 50
    while not list(tmp_path.rglob("000001.png")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    assert not (tmp_path / "a" / "data").exists()
    process.send_signal(number)
    process.communicate(timeout=50)
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_preparation_goes_on(clinic, number):
    """A polite stop ends the workers, says how to go on, and the second call finishes."""
    for k in range(8, 60):
        (clinic / "clinic" / f"{k}_L_CC.png").write_bytes((clinic / "clinic" / "7_L_CC.png").read_bytes())
    command = [sys.executable, "-m", "mame_lib", "prepare", "folder", "clinic", "--out", "data", "--size", "64"]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=clinic, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=listen
    )
    deadline = time.monotonic() + 50
    while not list(clinic.glob(".data.partial/images/*.png")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=50)
    if process.returncode:  # it may have been quicker than the signal
        assert process.returncode == 128 + number and b"goes on from here" in err
        assert not (clinic / "data").exists()
    done = subprocess.run(command, cwd=clinic, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "55 images" in done.stdout and not (clinic / ".data.partial").exists()


def test_doctor(capsys):
    from mame_lib.doctor import _meets

    assert main(["doctor"]) in (0, 1)
    out = capsys.readouterr().out
    assert "torch" in out and "required" in out and "python" in out
    assert _meets("2.13.0+cpu", ">=2.6,<3") and _meets("1.3.0", "==1.3") and _meets("1.0.4.post1", ">=1.0.4")
    assert not _meets("2.5.9", ">=2.6") and not _meets("3.0", ">=2,<3") and not _meets("missing", "")


def test_doctor_names_the_repair(capsys, monkeypatch):
    from mame_lib import doctor as module_or_function
    from mame_lib.doctor import doctor

    real = doctor.__globals__["metadata"].version
    old = {"numpy": "1.26.4"}
    monkeypatch.setattr(doctor.__globals__["metadata"], "version", lambda name: old.get(name) or real(name))
    assert module_or_function() is False
    assert 'pip install "numpy>=2.0"' in capsys.readouterr().out


def test_lazy_names():
    assert mame_lib.Attributes().vendor is None and callable(mame_lib.doctor)
    assert "Mame" in dir(mame_lib)
    with pytest.raises(AttributeError):
        mame_lib.nothing  # noqa: B018


def test_the_parser_knows_what_the_library_knows():
    from mame_lib.data import geometry, grayscale, phantom, sources

    assert (FITS, PRIORS, INTENSITIES) == (geometry.FITS, phantom.PRIORS, grayscale.INTENSITIES)
    assert set(SOURCE_HELP) == set(sources.SOURCES)


def test_models_are_listed(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for words in ("tiny", "fused", "sd15-inpaint", "512 px", "Likalto4/fusion_healthy", "not verified by us"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 120


def test_convert_writes_a_whole_folder(here, capsys):
    assert main(["convert", "tiny", "--out", "a/safe", "--dtype", "float32"]) == 0
    assert capsys.readouterr().out == "a/safe\n"
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "mame.json"} <= set(tree(here / "a/safe"))


@pytest.mark.parametrize(
    "line, words",
    [
        ("convert", "MODEL"),
        ("convert tiny", "--out"),
        ("convert tiny --out a --dtype int8", "'int8'"),
        ("convert tiny --out full", "name a new folder"),
        ("convert tiny --out file", "name a new folder"),
        ("convert tiny --out file/a", "is not a folder"),
        ("convert tinny --out a", "there is no model 'tinny'"),
        ("convert full --out a", "no model_index.json"),
        ("convert some/one --out a", "cannot load the model 'some/one' from the Hugging Face Hub"),
        ("models tiny", "tiny"),
    ],
)
def test_mistakes_about_models_are_one_sentence(here, capsys, line, words):
    before = tree(here)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mame: error: ") and words in err and err.count("\n") == 1
    assert tree(here) == before


def test_the_parser_knows_the_types_of_numbers():
    from mame_lib.arguments import DTYPES
    from mame_lib.models import convert

    assert tuple(convert.DTYPES) == DTYPES


def test_the_parser_knows_the_samplers():
    from mame_lib.arguments import SAMPLERS
    from mame_lib.diffusion import samplers

    assert tuple(samplers.SAMPLERS) == SAMPLERS
