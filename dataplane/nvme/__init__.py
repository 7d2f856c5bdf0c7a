"""Sans-IO NVMe and NVMe/TCP codecs: commands, PDUs, identify, log pages, statuses.

Bytes in, values out, and back.  No module here opens a socket, reads a clock or keeps a connection; both the
target and the initiator of the embedded engine, and whoever builds a raw command for SPDK, use these.
Sources: NVM Express Base Specification 2.0c, NVM Command Set 1.0c, NVMe/TCP Transport 1.0c.
"""
