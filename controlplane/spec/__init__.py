"""array.yaml: what people type, what it means, and every mistake with its file, line and column.

The door is ``controlplane.spec.load``.  Nothing here plans, stores or talks to an engine.
"""
