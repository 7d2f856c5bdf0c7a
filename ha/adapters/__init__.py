<<<<<<< HEAD
"""Sockets, clocks, processes and files of the HA manager; nothing is decided here."""
=======
"""Thin adapters between the HA decision and the world: sockets, processes, drives, addresses."""
>>>>>>> main
