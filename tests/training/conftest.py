"""Small data sets of phantoms, written once a session."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
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


@pytest.fixture(scope="session")
def warm() -> ForkServerContext:
    """Starts processes that have the libraries imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mame_lib.cli", "mame_lib.training.loop", "diffusers", "peft", "transformers.models.clip.modeling_clip",
         "diffusers.models.unets.unet_2d_condition", "diffusers.models.autoencoders.autoencoder_kl",
         "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"]
    )  # fmt: skip
    return context
