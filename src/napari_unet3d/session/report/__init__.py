"""The report on a model, for the methods section of a paper: HTML and PDF."""
