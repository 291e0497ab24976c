"""Paint a few slices of a 3D stack, train a 3D U-Net on them, segment the whole stack."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# Torch's threads wait for each other by spinning, which makes single steps several times slower
# where another program uses a core too. A short spin, then sleep, costs nothing on idle cores
# (benchmarks/threads.py). OpenMP reads this once, when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# With torch 2.13, oneDNN's AMX kernels give wrong gradients of shallow maps in bf16, and read and
# write beyond their memory, which can end in NaN or in a crash. oneDNN reads this variable before
# its first convolution, and then takes the kernels without AMX. A value that is set already stays.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

_PUBLIC = {
    "AugmentationConfig": "config",
    "ClassInfo": "config",
    "NetworkConfig": "networks",
    "ObjectsConfig": "config",
    "PredictionConfig": "config",
    "TrainingConfig": "config",
    "BadInputError": "errors",
    "RunFailedError": "errors",
    "SlicePaint": "data.joined_labels",
    "SliceRef": "data.slices",
    "SparseAnnotation": "data.annotation",
    "Volume": "data.volume",
    "read_labels": "data.io.reading",
    "read_volume": "data.io.reading",
    "tubules": "data.samples",
    "ModelBundle": "model.bundle",
    "UNet3D": "networks.unet",
    "UNetConfig": "networks.unet",
    "find_objects": "objects.finding",
    "predict": "prediction.predictor",
    "Trainer": "training.trainer",
    "TrainingControl": "training.control",
    "NamedModel": "session.session",
    "Session": "session.session",
    "SessionFolder": "session.folder",
    "make_report": "session.report.assembly",
    "write_report": "session.report.assembly",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    # Loaded on first use: napari reads this package at start, and torch takes seconds.
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
