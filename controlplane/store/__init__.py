"""Desired state and allocation, kept so that no crash loses them.

``Store`` is the interface; ``FileStore`` keeps a generation-numbered file per node.  The high-availability
manager moves the same interface onto the drives themselves.
"""

from controlplane.store.base import Store
from controlplane.store.file import FileStore

__all__ = ["FileStore", "Store"]
