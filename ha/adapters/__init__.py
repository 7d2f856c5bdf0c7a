"""Sockets, clocks, processes and files of the HA manager; nothing is decided here."""
