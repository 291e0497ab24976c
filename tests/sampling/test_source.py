"""Gray values read box by box equal those kept on the device, to the bit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.sampling import source as module
from napari_unet3d.sampling.source import (
    ResidentSource,
    Source,
    mirror_index,
    nearest_index,
    open_source,
    resident_bytes,
)

CPU = torch.device("cpu")
SHAPE = (37, 12, 9)
"""Three slabs of 16 planes, the last one of 5."""
BOXES = [
    ((0, 0, 0), SHAPE),
    ((3, 2, 1), (7, 12, 4)),
    ((15, 0, 0), (33, 5, 5)),  # all three slabs
    ((-4, -3, -20), (41, 15, 30)),  # beyond every face, along x by more than the volume
    ((-5, 0, 0), (-1, 4, 4)),  # wholly outside
    ((36, 11, 8), (40, 14, 12)),
]


def volume(axes: str = "ZYX", dtype=np.uint16) -> Volume:
    shape = {"ZYX": SHAPE, "CZYX": (2, *SHAPE), "TCZYX": (3, 2, *SHAPE)}[axes]
    values = np.random.default_rng(0).normal(1000, 300, shape).clip(0)
    if np.dtype(dtype).kind == "f":
        values[..., 0, 0] = np.nan
    return Volume(values.astype(dtype), axes)


def pair(stack: Volume, times: int = 9, device=CPU) -> tuple[Source, ResidentSource]:
    """A plain and a resident source of the same stack, with room for some time points."""
    intensity = IntensityNormalization.estimate(stack)
    room = times * resident_bytes(stack)
    return Source(stack, intensity, device), ResidentSource(stack, intensity, device, room)


class Counting:
    """An array that counts the voxels that are read from it."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

    def __getitem__(self, key):
        part = self.data[key]
        self.read += part.size
        return part


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", ["mirror", "nearest"])
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_a_box_is_the_padded_volume(box, beyond, device):
    """The reference is numpy's own padding of the whole volume."""
    stack = volume()
    plain, resident = pair(stack, device=device)
    start, stop = box
    whole = plain.intensity.apply(stack.crop(0, (0, 0, 0), SHAPE))
    pad = 40
    mode = {"mirror": "reflect", "nearest": "edge"}[beyond]
    padded = np.pad(whole, [(0, 0), *[(pad, pad)] * 3], mode=mode)
    expected = padded[(slice(None), *(slice(a + pad, b + pad) for a, b in zip(*box, strict=True)))]
    for source in (plain, resident):
        np.testing.assert_array_equal(source.read(0, start, stop, beyond).cpu().numpy(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("axes", ["ZYX", "CZYX", "TCZYX"])
def test_a_resident_source_equals_the_plain_one_to_the_bit(axes, dtype, device):
    stack = volume(axes, dtype)
    plain, resident = pair(stack, device=device)
    for time, (start, stop), beyond in product(range(stack.n_times), BOXES, ["mirror", "nearest"]):
        expected = plain.read(time, start, stop, beyond)
        assert torch.equal(resident.read(time, start, stop, beyond), expected)
    for time, (start, stop) in product(range(stack.n_times), BOXES[:3]):
        assert torch.equal(resident.crop(time, start, stop), plain.crop(time, start, stop))


def test_changing_a_box_in_place_leaves_the_resident_values_alone():
    plain, resident = pair(volume())
    for read in (resident.crop, resident.read):
        read(0, (0, 0, 0), SHAPE).zero_()
        assert torch.equal(read(0, (0, 0, 0), SHAPE), plain.crop(0, (0, 0, 0), SHAPE))


@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "resident"])
@pytest.mark.parametrize(
    ("time", "stop"), [(1, (4, 4, 4)), (-1, (4, 4, 4)), (0, (38, 4, 4))], ids=str
)
def test_what_lies_outside_is_refused(kind, time, stop):
    source = pair(volume())[kind]
    with pytest.raises(IndexError, match=r"time point|box"):
        source.crop(time, (0, 0, 0), stop)


def test_a_source_that_gives_up_its_memory_reads_the_same_values(device):
    plain, resident = pair(volume(), device=device)
    assert not plain.give_up()
    assert not resident.give_up()  # it holds nothing yet
    for source in pair(volume(), device=device):
        before = source.read(0, *BOXES[3])
        assert source.give_up() == isinstance(source, ResidentSource)
        assert torch.equal(source.read(0, *BOXES[3]), before)
        assert torch.equal(source.crop(0, *BOXES[1]), plain.crop(0, *BOXES[1]))
        assert not source.give_up()  # it keeps nothing any more


# --- how often the stack is read ------------------------------------------------------------


def test_each_slab_is_read_once_and_only_when_it_is_needed():
    stack = volume()
    intensity = IntensityNormalization.estimate(stack)
    counting = Counting(stack.data)
    resident = ResidentSource(Volume(counting, "ZYX"), intensity, CPU, resident_bytes(stack))
    plane = SHAPE[1] * SHAPE[2]
    for _ in range(3):
        resident.crop(0, (2, 3, 3), (5, 6, 6))
        assert counting.read == 16 * plane
    resident.crop(0, (2, 3, 3), (37, 6, 6))
    assert counting.read == SHAPE[0] * plane


def test_the_oldest_time_point_makes_way():
    stack = volume("TCZYX")
    plain, resident = pair(stack, times=2)
    for time in (0, 1, 2, 0):
        box = time, (0, 0, 0), SHAPE
        assert torch.equal(resident.crop(*box), plain.crop(*box))
        assert len(resident._times) <= 2
    assert set(resident._times) == {2, 0}


def test_too_little_memory_means_reading(monkeypatch):
    stack = volume()
    plain, resident = pair(stack)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module.torch, "empty", full)
    for start, stop in BOXES:
        assert torch.equal(resident.read(0, start, stop), plain.read(0, start, stop))


def test_an_error_while_reading_is_not_taken_for_values():
    """A slab that could not be read is read again the next time."""
    stack = volume()
    plain, resident = pair(stack)

    class Failing:
        def apply(self, crop):
            raise OSError("the disk is gone")

    resident.intensity = Failing()
    with pytest.raises(OSError, match="disk"):
        resident.crop(0, (0, 0, 0), SHAPE)
    resident.intensity = plain.intensity
    assert torch.equal(resident.crop(0, (0, 0, 0), SHAPE), plain.crop(0, (0, 0, 0), SHAPE))


# --- which source ---------------------------------------------------------------------------


def test_on_a_cpu_a_stack_is_not_held_twice():
    stack = volume()
    source = open_source(stack, IntensityNormalization.estimate(stack), CPU)
    assert type(source) is Source


@pytest.mark.parametrize(
    ("free", "kind"), [(1 << 30, ResidentSource), (4 * 4 * 37 * 12 * 9 - 1, Source)]
)
def test_on_a_gpu_a_stack_is_resident_where_it_fits_into_a_quarter(monkeypatch, free, kind):
    stack = volume()
    monkeypatch.setattr(module.devices, "free_memory", lambda device: free)
    gpu = torch.device("cuda", 0)
    assert type(open_source(stack, IntensityNormalization.estimate(stack), gpu)) is kind


def test_a_stack_on_a_disk_is_read_crop_by_crop(monkeypatch):
    stack = volume()
    monkeypatch.setattr(module.devices, "free_memory", lambda device: 1 << 40)
    lazy = Volume(Counting(stack.data), "ZYX")
    gpu = torch.device("cuda", 0)
    assert type(open_source(lazy, IntensityNormalization.estimate(stack), gpu)) is Source


# --- voxel indices ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 3), (4, 4), (20, 33)])
def test_mirror_index_is_numpy_s_reflect(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirror_index(-before, size + after, size), expected)


def test_mirror_index_of_a_part_that_lies_beyond_the_volume():
    whole = mirror_index(-40, 40, 7)
    np.testing.assert_array_equal(mirror_index(20, 31, 7), whole[60:71])


@pytest.mark.parametrize(("size", "before", "after"), [(7, 3, 4), (7, 40, 40), (1, 2, 2)])
def test_nearest_index_is_numpy_s_edge(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="edge")
    np.testing.assert_array_equal(nearest_index(-before, size + after, size), expected)
