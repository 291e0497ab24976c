"""Parts of the dock, each an editor or a display of one typed value: Qt only, no napari."""
