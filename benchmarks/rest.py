"""When a continuous training would rest, and what more time would have given.

python benchmarks/rest.py [--data FOLDER] [--rounds N] [NAME ...]

Each stack is annotated on three slices, and on a fourth that is held out. After each round the
whole stack is segmented and compared with its truth. `held out` is what the training goes by where
slices are held out, `agreement` where none are.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from protocol import SAMPLE, annotate, annotated_slices, class_scores, load_stack, mean_iou

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores, RoundFinished, drain
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.rounds import FIRST_ROUND
from napari_unet3d.training.trainer import Trainer


def main() -> None:
    """Print a table for each stack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of stacks; else the built-in one")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("names", nargs="*", default=[SAMPLE])
    arguments = parser.parse_args()
    print("| stack | round | s | iterations | IoU | held out | gain | agreement | rests |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.names:
        volume, truth = load_stack(arguments.data, name)
        labels = annotate(truth, 3)
        trained = annotated_slices(truth.shape, 3)
        held_out = SliceRef(0, (trained[0].index + trained[1].index) // 2)
        labels[held_out.index] = np.maximum(truth[held_out.index], 1)
        annotation = SparseAnnotation.from_labels(labels, held_out=[held_out])
        trainer = Trainer(volume, annotation, TrainingConfig(seconds=FIRST_ROUND, device="cpu"))
        scores: HeldOutScores | None = None
        with closing(trainer.run_rounds()) as training:
            for event in training:
                if isinstance(event, HeldOutScores):
                    scores = event
                if not isinstance(event, RoundFinished):
                    continue
                result = np.zeros(truth.shape, np.uint8)
                drain(predict(event.bundle, replace(volume), result))
                iou = mean_iou(class_scores(result, truth, labels == 0))
                measured = None if scores is None else scores.mean_iou
                cells = [iou, measured, event.gain, event.agreement]
                texts = ["" if n is None else f"{n:.3f}" for n in cells]
                begin = [name, event.number, round(event.seconds), event.bundle.record.iterations]
                print(f"| {' | '.join(map(str, [*begin, *texts, event.end]))} |", flush=True)
                if event.number == arguments.rounds:
                    break


if __name__ == "__main__":
    main()
