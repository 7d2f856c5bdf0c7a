"""Thin adapters between the HA decision and the world: sockets, processes, drives, addresses."""
