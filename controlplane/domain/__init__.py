"""Pure values of the array: names, sizes, topology, storage, ANA and coded errors.

Nothing here opens a file, reads a clock or talks to a target; every other package may import it.
"""
