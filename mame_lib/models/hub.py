"""Where the files of a model lie: in a folder, among the shipped models, or in the Hugging Face Hub and its cache."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mame_lib.errors import InputError
from mame_lib.models.presets import SHIPPED, WEIGHTS

# Each network: the class it must be, and how the libraries name its weights.
NETWORKS = {
    "unet": ("UNet2DConditionModel", "diffusion_pytorch_model"),
    "vae": ("AutoencoderKL", "diffusion_pytorch_model"),
    "text_encoder": ("CLIPTextModel", "model"),
}
PARTS = (*NETWORKS, "tokenizer", "scheduler")
OURS = "mame.json"
SECONDS = 5.0  # how long to wait for the Hub to answer; it is asked twice


def weight_files(names: Iterable[str], part: str) -> list[str]:
    """Which of a folder's files are the weights of a network, best first to look for; empty when there are none.

    names : all files of the model, as paths relative to its folder with `/`.
    part : a key of `NETWORKS`.

    Safetensors before pickled files, full precision before half, one file before many (with their index). The weights
    without averaging (`non_ema`) and those for other frameworks are passed over.
    """
    stem = NETWORKS[part][1]
    there = {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}
    for stems, ending in ((stem,), "safetensors"), ((stem, "pytorch_model"), "bin"):
        for half in ("", ".fp16"):
            for base in stems:
                single, index = f"{base}{half}.{ending}", f"{base}.{ending}.index{half}.json"
                if single in there:
                    return [f"{part}/{single}"]
                shards = sorted(name for name in there if re.fullmatch(rf"{base}{half}-\d+-of-\d+\.{ending}", name))
                if index in there and shards:
                    return [f"{part}/{name}" for name in (*shards, index)]
    return []


def listing(folder: Path) -> list[str]:
    """All files below a folder, relative to it, with `/`."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pickles_only(model: str, part: str) -> InputError:
    """What to say of a model whose weights are pickled."""
    return InputError(
        f"the model {model!r} stores its {part} in pickled .bin files, which may run any program when they are "
        f"opened; `mame convert {model} --out DIR` reads their numbers alone and writes a safe folder."
    )


def fetch(repo: str, *, pickled: bool = False, weights: bool = True) -> Path:
    """The folder in the cache with the files of a Hub repository that we read, downloaded where they are missing.

    Without an answer from the Hub within seconds, the cache alone is used.

    pickled : fetch pickled weights too, where there are no others; they are not opened here.
    weights : False fetches the configurations alone.

    Raises
    ------
    InputError
        If the Hub does not answer, or does not show this repository, and it is not in the cache either; if it has
        pickled weights only, which were not asked for.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    reason = "the Hub cannot be reached from here"
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE forbids to ask the Hub"
    try:
        found = HfApi().model_info(repo, timeout=SECONDS)
        names = [file.rfilename for file in found.siblings or ()]
        small = [n for n in names if re.fullmatch(rf"({'|'.join(PARTS)})/[^/]*\.(json|txt)|[^/]*\.json|start\.\w+", n)]
        found_files = {part: weight_files(names, part) for part in NETWORKS if weights}
        for part, files in found_files.items():
            if not pickled and any(".bin" in name for name in files):
                raise pickles_only(repo, part)
        wanted = [*small, *(file for files in found_files.values() for file in files)]
        return Path(snapshot_download(repo, revision=found.sha, allow_patterns=wanted))
    except InputError:
        raise
    except GatedRepoError:
        reason = "its owner wants you to accept terms first; do so on its page and log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the Hub shows no such model; if it is private, log in with `hf auth login`"
    except Exception as error:  # the Hub's client passes on whatever its HTTP library of the day raises
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            what = f"{error.strerror}: {error.filename}"
            raise InputError(f"cannot store the model {repo} ({what}); make room in the cache.") from error
    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise InputError(
            f"cannot load the model {repo!r} from the Hugging Face Hub ({reason}), and it is not on this machine; "
            "connect once to download it, or give a folder or one of the shipped models."
        ) from error


def is_cached(repo: str) -> bool:
    """Whether a Hub repository, or a part of it, is on this machine; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, "model_index.json"), str)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty when there is no such file. Raises `InputError` when it is not JSON, or no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"cannot load the model: {path} is not valid JSON; fetch the file again.") from error
    if not isinstance(values, dict):
        raise InputError(f"cannot load the model: {path} holds no JSON object; fetch the file again.")
    return values


def places(folder: Path) -> dict[str, Path]:
    """The folder of each part of a model: its own, or that of the shipped model it shares the part with.

    Raises
    ------
    InputError
        If the model is not a Stable Diffusion 1.x or 2.x pipeline, or a part is missing.
    """
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name", "pipeline of no kind")
    classes = {name: value[1] for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    others = {name for name, value in classes.items() if value} & {"text_encoder_2", "transformer", "image_encoder"}
    wrong = [name for name, (expected, _) in NETWORKS.items() if classes.get(name) != expected]
    if wrong or others:
        why = f"it has no {NETWORKS[wrong[0]][0]}" if wrong else f"it has a {min(others)}"
        hint = "; it draws without text" if str(kind).startswith(("DDPM", "DDIM", "ScoreSde")) else ""
        raise InputError(
            f"cannot load the model {folder.name}: a {kind} is not a text-to-image model of the kind of Stable "
            f"Diffusion 1.5 or 2.1 ({why}{hint}); choose one that is."
        )
    shared = read_json(folder / OURS).get("shared", {})
    found = {part: folder / part for part in PARTS}
    for part, name in shared.items() if isinstance(shared, dict) else ():
        if part in found and not found[part].is_dir():
            if name not in SHIPPED:
                raise InputError(f"cannot load {folder}: its {part} is said to be that of {name!r}, which is unknown.")
            found[part] = WEIGHTS / name / part
    if missing := [part for part, place in found.items() if not place.is_dir()]:
        raise InputError(f"cannot load the model: {folder} has no folder {' and no '.join(missing)}; fetch it again.")
    return found
