"""What ``ws7000 ha`` needs beside its commands.

``agent_config`` makes an agent's configuration, ``told`` turns what agents say into sentences, ``orders`` gives orders
and says what came of them, ``measure`` and ``advise`` say which subsystem to move, ``policies`` shows the times and
their rules, ``top`` is the live view, ``lab`` breaks what a lab started.
"""
