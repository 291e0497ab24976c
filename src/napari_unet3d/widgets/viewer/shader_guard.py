"""Keeps a fault of Mesa, the OpenGL driver of many Linux computers, from ending the program.

Mesa 22.3 crashes (segmentation fault in ``glDrawArrays``) in the second frame after a shader
program was deleted, which vispy does when napari removes a layer; pure napari crashes as well.
"""

from __future__ import annotations

from typing import Any

from vispy.gloo import gl


class ShaderGuard:
    """Lets Mesa keep the programs of removed layers, until `stop`.

    They are a few kilobytes each, and go with the window's OpenGL context. Textures and buffers,
    which may be large, are deleted as ever; so is everything with other drivers.
    """

    def __init__(self) -> None:
        self._original = gl.glDeleteProgram
        self._on = True

        def delete(program: Any) -> None:
            # The version is known only here, where a context is current.
            if not (self._on and "Mesa" in str(gl.glGetParameter(gl.GL_VERSION))):
                self._original(program)

        self._delete = delete
        gl.glDeleteProgram = delete

    def stop(self) -> None:
        """Let programs be deleted again."""
        self._on = False
        if gl.glDeleteProgram is self._delete:  # another window may have replaced it since
            gl.glDeleteProgram = self._original
