"""A model as ONNX: the whole decision for a tile of a fixed shape."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.exchange.sample import ExportSample, build_portable, check_exportable
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.stock import with_plain_layers

_OPSET = 20
"""Version of the operators: the first one with all that is used."""
_LARGEST_DIFFERENCE, _EQUAL = 1e-4, 0.999
"""Mean difference of probabilities, and share of equal labels. A runtime that differs more computes
something else; single voxels differ where a feature lies at the threshold of a tree."""


def write_onnx(bundle: ModelBundle, sample: ExportSample, path: Path) -> str:
    """Write a model as ONNX, and compare it with the model in onnxruntime.

    The input is `image` (1, C, z, y, x) float32 of the sample's shape: clipped at the percentiles,
    then less the mean of the unclipped image and divided by its standard deviation. The outputs are
    `probabilities` and `labels`.

    Returns
    -------
    str
        How far the runtime differs.

    Raises
    ------
    BadInputError
        onnx, onnxscript or onnxruntime is not installed.
    RunFailedError
        The network cannot be written so, or the runtime gives something else.
    """
    runtime = _runtime()
    check_exportable(bundle)
    image, model = sample.normalized(bundle.intensity.clip[0]), build_portable(bundle, sample)
    expected, expected_labels = (t.numpy() for t in model(image))
    model = with_plain_layers(model)  # ours call oneDNN, which no export knows
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            model,
            (image,),
            input_names=["image"],
            output_names=["probabilities", "labels"],
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,  # it takes a minute, and gains nothing here
            verbose=False,
        )
        assert program is not None
        program.model_proto.metadata_props.add(
            key="napari-unet3d",
            value=json.dumps({"classes": [c.name for c in bundle.classes],
                              "percentiles": bundle.intensity.clip[0]}),
        )  # fmt: skip
        data = program.model_proto.SerializeToString()
    except Exception as error:
        raise RunFailedError(
            f"PyTorch cannot write the network '{bundle.network.kind}' as ONNX: export a "
            "bioimage.io package, *.zip, instead."
        ) from error
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found, labels = session.run(None, {"image": image.numpy()})
    difference = float(np.abs(found - expected).mean())
    equal = float((labels == expected_labels).mean())
    if not (difference < _LARGEST_DIFFERENCE and equal > _EQUAL):
        raise RunFailedError(
            f"onnxruntime gives probabilities that differ by {difference:.2g} in the mean from the "
            f"model's, and {100 * equal:.2f} % of its labels. The file was not written."
        )
    Replacement(path).write(data)
    return (
        f"compared in onnxruntime on {sample.name}: probabilities differ by {difference:.1g} in "
        f"the mean, {100 * equal:.3f} % of the labels are equal"
    )


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInputError(
            f"{error.name} is not installed: pip install 'napari-unet3d[exchange]'"
        ) from error
    return onnxruntime
