"""Desired state and allocation, kept so that no crash loses them.

``Store`` is the interface; ``FileStore`` keeps a generation-numbered file per node, ``HaStore`` the journal on
the drives with the files as its copy.
"""

from controlplane.store.base import Store
from controlplane.store.file import FileStore
from controlplane.store.journal import Agents, HaStore

__all__ = ["Agents", "FileStore", "HaStore", "Store"]
