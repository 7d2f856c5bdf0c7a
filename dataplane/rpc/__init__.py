"""JSON-RPC to an engine: calls as values, a session that carries them, the published schema that checks them.

Reading order: ``call``, ``wire`` (bytes, no I/O), ``stream`` (one connection), ``session``, ``schema``, ``methods``
(the only place that knows the engine's units), ``reply`` and ``values``, ``errors``, ``redact``.
"""
