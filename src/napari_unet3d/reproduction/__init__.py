"""The experiments of Çiçek et al. 2016, repeated on any stack with labels, and on any network."""
