"""Measurements: the same job on each engine that is here, side by side in one run; medians and ratios.

Nothing in here is a test: a bound that holds on a quiet machine fails on a busy one.
"""
