"""TIFFs that promise more than they hold: each kind of description, each way to lose planes."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_unet3d.data.io.reading import read_geometry, read_volume
from napari_unet3d.errors import BadInputError

ZYX = np.random.default_rng(0).integers(1, 60_000, (12, 20, 24)).astype(np.uint16)
PIXELS = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="24" '
    'SizeY="20" SizeZ="{z}" SizeC="{c}" SizeT="{t}" PhysicalSizeX="0.5" PhysicalSizeY="0.5" '
    'PhysicalSizeZ="2"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
)


def ome_xml(data="<TiffData/>", z=12, c=1, t=1, root=""):
    inside = PIXELS.format(z=z, c=c, t=t, data=data)
    namespace = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    return f'<?xml version="1.0" encoding="UTF-8"?><OME {namespace}{root}>{inside}</OME>'


def write_pages(path, planes, description=None, **options):
    with tifffile.TiffWriter(path) as tif:
        for i, plane in enumerate(planes):
            tif.write(
                plane,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                description=description if i == 0 else None,
                **options,
            )


def write_set(folder, lose=(), root=True):
    """An OME-TIFF of one file a slice; the names of those that are not written are in `lose`."""
    names = [f"s_{i:02d}.ome.tif" for i in range(12)]
    ids = [f"urn:uuid:00000000-0000-0000-0000-{i:012d}" for i in range(12)]
    data = "".join(
        f'<TiffData FirstZ="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{names[i]}">{ids[i]}</UUID></TiffData>'
        for i in range(12)
    )
    for i, name in enumerate(names):
        if name not in lose:
            xml = ome_xml(data, root=f' UUID="{ids[i]}"' if root else "")
            write_pages(folder / name, ZYX[i : i + 1], xml)
    return folder / "s_00.ome.tif"


def refused(path, message):
    with pytest.raises(BadInputError, match=message):
        read_volume(path)
    assert read_geometry(path) is None


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_acquisition_that_was_stopped(tmp_path, compression):
    path = tmp_path / "a.ome.tif"
    write_pages(path, ZYX, ome_xml(), compression=compression)
    np.testing.assert_array_equal(np.asarray(read_volume(path).data), ZYX)  # the precondition
    write_pages(path, ZYX[:9], ome_xml(), compression=compression)
    refused(path, r"planes z=9, 10, 11 are not in the file\..*stopped early.*again")


def test_ome_time_points_that_are_missing(tmp_path):
    write_pages(tmp_path / "a.ome.tif", ZYX[:10], ome_xml(z=3, t=4))
    refused(tmp_path / "a.ome.tif", "planes t=3 z=1, t=3 z=2 are not in the file")


@pytest.mark.parametrize("root", [True, False])
def test_files_of_an_ome_set_that_are_lost(tmp_path, root):
    path = write_set(tmp_path, root=root)
    volume = read_volume(path)
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX)
    assert volume.voxel_size == (2, 0.5, 0.5)
    for name in ("s_05.ome.tif", "s_07.ome.tif"):
        (tmp_path / name).unlink()
    refused(path, r"'s_05.ome.tif', 's_07.ome.tif' are missing beside .*one of 12 files")


def test_file_of_an_ome_set_that_was_copied_away(tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    path = write_set(tmp_path)
    (away / path.name).write_bytes(path.read_bytes())
    refused(away / path.name, "'s_08.ome.tif' and 3 more are missing beside")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_in_an_ome_set_is_not_waited_for(tmp_path):
    path = write_set(tmp_path, lose=["s_05.ome.tif"])
    os.mkfifo(tmp_path / "s_05.ome.tif")
    refused(path, "'s_05.ome.tif' is missing")


def test_truncated_file_of_an_ome_set(tmp_path):
    path = write_set(tmp_path)
    other = tmp_path / "s_05.ome.tif"
    other.write_bytes(other.read_bytes()[:-100])
    refused(path, "plane z=5 is not in the file")


def test_single_ome_file_may_be_renamed(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", ZYX, metadata={"axes": "ZYX"})
    (tmp_path / "a.ome.tif").rename(tmp_path / "b.tif")
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "b.tif").data), ZYX)


def test_description_in_another_file(tmp_path):
    elsewhere = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    write_pages(tmp_path / "a.ome.tif", ZYX, elsewhere)
    refused(tmp_path / "a.ome.tif", "'a.companion.ome', which describes them, is missing")
    data = '<TiffData PlaneCount="12"><UUID FileName="a.ome.tif">urn:uuid:2</UUID></TiffData>'
    (tmp_path / "a.companion.ome").write_text(ome_xml(data), encoding="utf-8")
    volume = read_volume(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX)
    assert volume.voxel_size == (2, 0.5, 0.5)


@pytest.mark.parametrize("said", ["images=15\nslices=15\n", "images=15\n", "slices=5\nframes=3\n"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej_stack_that_lacks_pages(tmp_path, said, compression):
    write_pages(
        tmp_path / "a.tif", ZYX, f"ImageJ=1.54f\n{said}loop=false\n", compression=compression
    )
    refused(
        tmp_path / "a.tif",
        "not complete: (its description promises 15 planes|planes z=12|planes t=2 z=2)",
    )


def test_imagej_stack_behind_a_single_page(tmp_path):
    """How ImageJ writes stacks of more than 4 GB."""
    text = "ImageJ=1.54f\nimages=12\nslices=12\nloop=false\n"
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, byteorder=">") as tif:
        tif.write(ZYX[0], photometric="minisblack", metadata=None, description=text)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    whole = path.read_bytes()[:offset] + ZYX.astype(">u2").tobytes()
    path.write_bytes(whole)
    np.testing.assert_array_equal(np.asarray(read_volume(path).data), ZYX)
    path.write_bytes(whole[:-30])
    refused(path, "damaged, or is not complete")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_array_that_lacks_pages(tmp_path, compression):
    write_pages(tmp_path / "a.tif", ZYX[:11], '{"shape": [12, 20, 24]}', compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].kind == "shaped"
        assert tif.series[0].shape == (12, 20, 24) or compression
    refused(tmp_path / "a.tif", "complete")


@pytest.mark.parametrize(
    ("compression", "name"), [(None, "StripOffsets"), ("zlib", "StripByteCounts")]
)
def test_page_whose_voxels_were_never_written(tmp_path, compression, name):
    path = tmp_path / "a.tif"
    write_pages(path, ZYX, compression=compression)
    read_volume(path)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[4].tags[name]
        place, size = tag.valueoffset, {"SHORT": 2, "LONG": 4}[tag.dtype_name]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(size))
    refused(path, "plane z=4 is not in the file")


def test_warnings_of_tifffile_are_still_heard(tmp_path):
    """Where nobody listens to its logger, Python shows them on the terminal."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(ZYX, photometric="minisblack", extratags=[(65000, 2, 5, "abcd\0", True)])
    code = (
        "import logging, sys\n"
        "from napari_unet3d.data.io import tiff_files\n"
        "from napari_unet3d.data.io.reading import read_volume\n"
        "complete = tiff_files.check_complete\n"
        "def warn(*a):\n"
        "    logging.getLogger('tifffile').warning('something odd')\n"
        "    complete(*a)\n"
        "tiff_files.check_complete = warn\n"
        "read_volume(sys.argv[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tif")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("something odd") == 1


def test_warnings_reach_a_logger_once(tmp_path, caplog):
    write_set(tmp_path)
    with caplog.at_level(logging.WARNING):
        read_volume(tmp_path / "s_00.ome.tif")
    assert caplog.text == ""


def write_micromanager(path, planes, index, frames, slices):
    """A Micro-Manager stack: an index of planes, each an IFD of 13 tags with its voxels behind."""
    summary = json.dumps(
        {"MicroManagerVersion": "2", "Frames": frames, "Slices": slices, "Channels": 1}
    ).encode()
    first = 40 + len(summary) + 8  # behind a text that all planes share
    size = 162 + planes[0].nbytes
    offsets = [first + i * size for i in range(len(planes))]
    height, width = planes[0].shape
    out = struct.pack("<2sHI", b"II", 42, first)
    index_at = first + len(planes) * size
    out += struct.pack("<6I", 54773648, index_at, 483765892, 0, 99384722, 0)
    out += struct.pack("<2I", 2355492, len(summary)) + summary + b"{}     \0"
    for i, (plane, offset) in enumerate(zip(planes, offsets, strict=True)):
        tags = {
            254: (4, 0),
            256: (4, width),
            257: (4, height),
            258: (3, 16),
            259: (3, 1),
            262: (3, 1),
            273: (4, offset + 162),
            277: (3, 1),
            278: (4, height),
            279: (4, plane.nbytes),
            284: (3, 1),
            296: (3, 1),
            51123: (2, first - 8),
        }
        out += struct.pack("<H", len(tags))
        for code, (kind, value) in tags.items():
            out += struct.pack("<HHII", code, kind, 8 if kind == 2 else 1, value)
        out += struct.pack("<I", offsets[i + 1] if i + 1 < len(planes) else 0)
        out += plane.tobytes()
    out += struct.pack("<2I", 3453623, len(planes))
    for (time, z), offset in zip(index, offsets, strict=True):
        out += struct.pack("<5I", 0, z, time, 0, offset)
    path.write_bytes(out)


def test_micromanager_acquisition_that_was_stopped(tmp_path):
    index = [(t, z) for t in range(3) for z in range(4)]
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    write_micromanager(path, ZYX, index, frames=3, slices=4)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].kind == "mmstack"
    volume = read_volume(path)
    assert volume.axes == "TZYX"
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX.reshape(3, 4, 20, 24))
    write_micromanager(path, ZYX, index, frames=7, slices=4)
    refused(path, r"promises 7 frames, and it holds 3\..*stopped early")
    write_micromanager(path, ZYX[:10], index[:10], frames=3, slices=4)
    refused(path, "planes t=2 z=2, t=2 z=3 are not in the file")


def test_micromanager_files_that_are_lost(tmp_path):
    index = [(t, z) for t in range(3) for z in range(4)]
    first, second = tmp_path / "run_MMStack.tif", tmp_path / "run_MMStack_1.tif"
    write_micromanager(first, ZYX[:8], index[:8], frames=3, slices=4)
    write_micromanager(second, ZYX[8:], index[8:], frames=3, slices=4)
    np.testing.assert_array_equal(np.asarray(read_volume(first).data), ZYX.reshape(3, 4, 20, 24))
    second.unlink()
    refused(first, "promises 3 frames, and it holds 2.*Files of its set may be missing")
