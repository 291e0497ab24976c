"""The two ways in which the product says no."""


class BadInputError(ValueError):
    """What the user gave cannot be used; the text names the value and the cure.

    Raised before anything runs: nothing was changed. Exit code 2 on the command line.
    """


class RunFailedError(Exception):
    """Something failed while running; the text says what and what is left.

    Deliberately no ``RuntimeError``: superqt's generator worker swallows those.
    Exit code 1 on the command line.
    """
