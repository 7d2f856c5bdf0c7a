"""The deterministic simulator: two nodes, their drives, networks and hosts in virtual time, from one seed.

``world`` is the place to start reading; ``nemesis`` breaks things, ``checkers`` and ``linear`` judge what hosts and
drives saw, ``mutants`` proves that the judging bites.  Nothing here runs in the product.
"""
