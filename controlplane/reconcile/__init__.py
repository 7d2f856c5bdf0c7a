"""Observe -> plan -> apply -> observe: the thin adapters around the pure planner.

``observe`` reads both nodes afresh, ``calls`` turns a step into engine calls, ``apply`` runs a plan stage by
stage with a journal of intents, ``reconciler`` joins them with the store.
"""
