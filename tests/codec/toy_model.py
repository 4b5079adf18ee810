"""A few tensors and what a calibration might say of them: layers, tables, small parameters, of all shapes."""

import numpy as np

from codec.storage.calibration_file import Layers

MATRICES = {"up": (80, 48), "down": (48, 80), "q": (48, 48), "k": (48, 48), "emb": (112, 48)}
TABLES = {"emb": (112, 48), "table": (96, 32)}
WEIGHTS = 20_736  # in matrices


def moments(columns: int, random: np.random.Generator, inputs: int = 400) -> np.ndarray:
    """Of inputs of different sizes that hang together, a sum over so many."""
    seen = random.normal(size=(inputs, columns)) * 2.0 ** random.uniform(-1, 1, columns)
    seen += 0.5 * seen[:, ::-1]
    return (seen.T @ seen).astype(np.float32)


def toy_model(seed: int = 0) -> tuple[dict[str, np.ndarray], Layers]:
    """Matrices, small tensors and integers, and a calibration of all that is calibrated."""
    random = np.random.default_rng(seed)
    tensors = {
        name: (random.normal(size=shape) * 2.0 ** random.uniform(-5, 0)).astype(np.float32)
        for name, shape in {**MATRICES, **TABLES}.items()
    }
    tensors |= {"gain": (1 + random.normal(size=64) / 8).astype(np.float32), "scale": np.full((), 1.5, np.float32)}
    tensors |= {"skip": (1 + random.normal(size=(3, 8, 2)) / 8).astype(np.float32)}
    tensors |= {"empty": np.zeros((0, 4), np.float32), "ids": np.arange(9)}
    layers = Layers(
        hessians={name: moments(shape[1], random) for name, shape in MATRICES.items()},
        sensitivities={
            name: (random.exponential(size=shape[0]) * 1e-4).astype(np.float32) for name, shape in MATRICES.items()
        },
        gradients={name: moments(shape[1], random) / 100 for name, shape in TABLES.items()},
        frequencies={
            name: random.dirichlet(np.full(shape[0], 0.3)).astype(np.float32) for name, shape in TABLES.items()
        },
        fishers={
            name: np.asarray(random.exponential(size=tensors[name].shape) / 10, np.float32)
            for name in ("gain", "scale", "skip")
        },
        batch_tokens=400.0,
    )
    return tensors, layers
