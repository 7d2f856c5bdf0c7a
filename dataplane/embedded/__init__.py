"""The embedded engine: NVMe over TCP and bdevs behind SPDK's own JSON-RPC methods.

It is the way in, for laptops and tests, not the product: a method exists only where a contract test that
passes on SPDK needs it.  Data flow::

    host --NVMe/TCP--> tcp_server -> nvmf (subsystem, controller, queue) -> bdev stack -> file
                                                                                  \\-> initiator --NVMe/TCP--> shelf
    control plane --JSON-RPC--> rpc_server -> rpc_*.py (one module per family) -> the same objects

One process, one asyncio loop; only file synchronisation leaves the loop's thread.
"""
