"""The NVMe over TCP initiator: how a node reaches its drives, and how the demo and the tests act as a host.

Why: multipath behaviour must be the same for a node looking at a shelf and for a host looking at two nodes, so
there is one initiator.  Read in this order::

    policy     which path, and what a failed attempt means         (pure)
    reconnect  what a controller does when its connection is lost  (pure)
    connection one queue over one TCP connection
    controller one association: admin queue, I/O queues, events, reconnecting
    multipath  the namespaces of a subsystem over all its controllers
    host       what the demo and the tests hold in hand
    module     the controllers that the RPC methods attach, and their bdevs

Nothing here may know the target's code: the same initiator talks to SPDK and to the embedded engine.
"""
