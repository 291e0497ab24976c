"""The passes of a training step as CUDA graphs: one launch in place of several hundred.

On a fast GPU, a step takes the CPU longer to launch than the GPU to compute. A CUDA graph is a
recording of the launches. It is replayed with the same memory addresses, so the batch is copied to
where the recording read it, and the gradients lie where the recording left them.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from napari_unet3d.networks import device as devices

Pass = Callable[[Tensor, Tensor], Tensor]
"""Computes the loss of images and targets, and the gradients of the parameters from none.

The loss that it returns is detached.
"""

_PLAIN_STEPS = 2
"""Steps of a shape that are computed as usual before one is recorded: libraries are loaded and
choose their algorithms in the first, which cannot be recorded."""
_ROOM = 4
"""Recordings that would fit into the free memory. Theirs is not given back between the steps, so
it may take a quarter: that of the largest patch beside previews, which take up to half, and the
image, which takes another quarter."""


class Recording(Protocol):
    """A pass that was recorded for one shape of batches."""

    def replay(self, image: Tensor, target: Tensor) -> Tensor:
        """Carry out the pass with another batch; see `Pass`."""
        ...


class Recorder(Protocol):
    """Records passes on a device."""

    def has_room(self, image: Tensor) -> bool:
        """Whether memory suffices for the recording of a pass."""
        ...

    def rehearse(self, run: Pass, image: Tensor, target: Tensor) -> Tensor:
        """Carry out the pass as it will be recorded."""
        ...

    def record(self, run: Pass, image: Tensor, target: Tensor) -> Recording:
        """Record the pass without carrying it out; raises what has failed."""
        ...


class ReplayedPass:
    """Carries out passes, and replays them where a recording is possible.

    Each shape of batches has its recording, made after a few steps. Where recording or replaying
    fails, for whatever reason, the pass is carried out as usual from then on.

    Parameters
    ----------
    run
        The pass. It must not depend on anything that changes between steps, but for tensors that
        are changed in place.
    recorder
        Makes the recordings; None carries out every pass as usual.
    """

    def __init__(self, run: Pass, recorder: Recorder | None) -> None:
        self._run, self._recorder = run, recorder
        self._recordings: dict[tuple[int, ...], Recording] = {}
        self._steps: Counter[tuple[int, ...]] = Counter()

    @property
    def recordings(self) -> int:
        """Shapes of batches whose passes are replayed."""
        return len(self._recordings)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Loss of a batch, detached; the parameters then hold its gradients."""
        if self._recorder is None:
            return self._run(image, target)
        shape = (*image.shape, *target.shape)
        self._steps[shape] += 1
        if shape not in self._recordings and self._steps[shape] <= _PLAIN_STEPS:
            return self._run(image, target)
        if shape not in self._recordings and self._steps[shape] == _PLAIN_STEPS + 1:
            return self._recorder.rehearse(self._run, image, target)
        if shape not in self._recordings and not self._recorder.has_room(image):
            return self._run(image, target)
        with contextlib.suppress(Exception):  # whatever it was: it must not end a training
            if shape not in self._recordings:
                self._recordings[shape] = self._recorder.record(self._run, image, target)
            return self._recordings[shape].replay(image, target)
        self.give_up()
        return self._run(image, target)

    def forget(self) -> None:
        """Drop all recordings, since tensors that they use are replaced; others may follow."""
        self._recordings.clear()
        self._steps.clear()

    def give_up(self) -> None:
        """Drop all recordings with their memory, and make none from now on."""
        self.forget()
        self._recorder = None


class _CudaGraph:
    """A recorded pass, with the tensors that it reads and writes."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        image: Tensor,
        target: Tensor,
        loss: Tensor,
        parameters: Sequence[nn.Parameter],
    ) -> None:
        self._graph, self._image, self._target, self._loss = graph, image, target, loss
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]

    def replay(self, image: Tensor, target: Tensor) -> Tensor:
        """Carry out the pass with another batch."""
        self._image.copy_(image)
        self._target.copy_(target)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()  # the next replay writes over it


class CudaRecorder:
    """Records passes as CUDA graphs.

    All recordings share their temporary memory: what a replay leaves is used up before the next.

    Parameters
    ----------
    device
        An NVIDIA GPU.
    parameters
        Whose gradients the passes compute.
    needed
        Bytes that a pass needs, from the shape of its images.
    """

    def __init__(
        self,
        device: torch.device,
        parameters: Sequence[nn.Parameter],
        needed: Callable[[Sequence[int]], int],
    ) -> None:
        self._device, self._parameters, self._needed = device, parameters, needed
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: weakref.WeakSet[_CudaGraph] = weakref.WeakSet()

    def has_room(self, image: Tensor) -> bool:
        """Whether enough memory would be left to previews."""
        return _ROOM * self._needed(image.shape) <= devices.free_memory(self._device)

    def rehearse(self, run: Pass, image: Tensor, target: Tensor) -> Tensor:
        """Carry out the pass in the stream of the recordings, whose workspaces are then there."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                return run(image, target)
        finally:
            current.wait_stream(self._stream)

    def record(self, run: Pass, image: Tensor, target: Tensor) -> Recording:
        """Record the pass; other threads may use the GPU meanwhile."""
        if not self._recorded:  # torch takes back a pool whose last recording is dropped
            self._pool = torch.cuda.graph_pool_handle()
        image, target = image.clone(), target.clone()
        state = self._generator.get_state()
        current = torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                loss = run(image, target)
        except BaseException:
            self._clean_up(current, state)
            raise
        recorded = _CudaGraph(graph, image, target, loss, self._parameters)
        self._recorded.add(recorded)
        return recorded

    @property
    def _generator(self) -> torch.Generator:
        return torch.cuda.default_generators[self._index]

    @property
    def _index(self) -> int:
        return torch.cuda.current_device() if self._device.index is None else self._device.index

    def _clean_up(self, current: torch.cuda.Stream, state: Tensor) -> None:
        """Undo what PyTorch leaves behind where a recording cannot be ended.

        Its stream stays the current one, its memory pool stays open, and the generator of random
        numbers refuses to draw.
        """
        torch.cuda.set_stream(current)
        with contextlib.suppress(Exception):
            torch._C._cuda_endAllocateToPool(self._index, self._pool)
        with contextlib.suppress(Exception):
            whole = torch.Generator(self._device)
            whole.set_state(state)
            self._generator.graphsafe_set_state(whole)
