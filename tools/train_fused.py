"""Make the shipped model `fused` from the tiny base, in two rounds over the same 3,000 phantoms.

    python tools/train_fused.py --work build/fused --out mame_lib/weights/fused

The second round starts from the averaged weights of the first. About 20 minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit

COUNT, SEED = 3000, 11
ROUNDS = ((1500, 1e-3), (900, 8e-4))  # steps of 32 images, learning rate


def main() -> None:
    """Draw the phantoms, train the rounds that are not there yet, copy the last model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/fused"))
    parser.add_argument("--out", type=Path, default=Path("mame_lib/weights/fused"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = options.work / "phantoms"
    if not data.exists():
        settings = {"count": COUNT, "size": 128, "seed": SEED}
        manifest.write(data, phantom_source(COUNT, 128, SEED), source="phantom", settings=settings)
    model = "tiny"
    for number, (steps, rate) in enumerate(ROUNDS, start=1):
        run = options.work / f"round-{number}"
        if not (run / "model").exists():
            config = TrainConfig(
                data=data,
                out=run,
                base=model,
                steps=steps,
                batch_size=32,
                learning_rate=rate,
                seed=1336 + number,
                validation_every=300,
                checkpoint_every=300,
                resume=(run / "config.json").exists(),
            )
            for result in fit(config):
                if result.step % 25 == 0:
                    print(f"round {number}  step {result.step}/{steps}  loss {result.loss:.4f}", flush=True)
        model = str(run / "model")
    card = options.out / "README.md"
    text = card.read_bytes() if card.exists() else None
    shutil.copytree(model, options.out, dirs_exist_ok=True)
    if text is not None:
        card.write_bytes(text)


if __name__ == "__main__":
    main()
