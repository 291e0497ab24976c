"""The work of the commands. It loads PyTorch, so the modules of the options import it late."""
