"""Failovers of a real array on this machine, measured from the host: ``ws7000 ha bench``.

``lab`` starts the processes, ``load`` is the host, ``measure`` lets a fault happen and reads both sides' clocks,
``report`` makes tables and a chart of it.  Nothing here decides or touches a process that the lab has not started.
"""
