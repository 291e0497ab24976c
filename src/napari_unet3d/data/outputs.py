"""Writing a result, under the name that scripts have imported it by."""

from napari_unet3d.data.io.outputs import create_output

__all__ = ["create_output"]
