"""The main job, end to end, on one machine: ``ws7000 demo``.

``lab`` starts the processes, ``story`` is the host's side, ``linux_host`` a real Linux kernel in QEMU, ``command``
tells it all.
"""
