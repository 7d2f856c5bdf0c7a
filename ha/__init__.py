"""Active-active high availability: what a node decides, and the thin adapters that see and do.

Reading order: ``model`` (values), ``policy`` (times), ``memory`` (the table of phases), ``decide`` and its parts, then
``journal``, ``heartbeat``, ``adapters``, ``cycle`` and ``agent``, ``leash``; ``sim`` and ``spec`` prove it.
"""
