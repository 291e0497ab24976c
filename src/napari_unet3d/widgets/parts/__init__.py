"""Editors of one typed value: Qt only, no napari."""
