"""The embedded engine: NVMe over TCP and bdevs behind SPDK's own JSON-RPC methods.

It is the way in, for laptops and tests, not the product: a method exists only where a contract test that
passes on SPDK needs it.  Data flow::

    host --NVMe/TCP--> nvmf (tcp, admin, io, subsystem, controller) -> bdev stack -> file
                                                                                  \\-> initiator --NVMe/TCP--> shelf
    control plane --JSON-RPC--> rpc.listener -> rpc/*.py (one module per family) -> the same objects

One process, one asyncio loop; only file synchronisation and the exponents of DH-HMAC-CHAP leave the loop's thread.
"""
