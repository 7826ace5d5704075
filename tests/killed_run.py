"""A run of training for the kill tests: ``killed_run.py CHECKPOINT FINAL``. Resumes, and writes its parameters."""

import os
import sys

import numpy as np

from test_training import make


def main(checkpoint: str, final: str) -> None:
    trainer, data, options = make("ragged")
    options.pop("patience")
    print("begun", flush=True)
    trainer.fit(data, 60, checkpoint=checkpoint, checkpoint_steps=1, resume=True, progress=False, **options)
    np.save(final + ".part.npy", trainer.model.flat_parameters)
    os.replace(final + ".part.npy", final)


if __name__ == "__main__":
    main(*sys.argv[1:])
