"""From classes to objects: touching objects separated, numbered and measured, block by block.

`find_objects` is the whole step. It needs numpy, scipy and two small libraries, and no PyTorch of
its own; stacks may be larger than the memory.
"""
