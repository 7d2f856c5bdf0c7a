"""One function for each engine method the product calls; each returns a ``Call`` and sends nothing.

Why: SPDK mixes MiB, KiB, bytes, blocks, microseconds, milliseconds and seconds in its parameters.  Here, and
nowhere else, they are converted: callers say ``size_bytes`` and ``deadline_s``-like names with their unit, and a
quantity that the engine's unit cannot express is refused (``UnitsError``), never rounded.  Parameters that are
``None`` are not sent, so that the engine's default applies.
"""
