"""Tools that edit one slice of an annotation: 2D arrays in, the voxels that change out."""
