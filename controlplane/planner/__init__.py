"""Desired x observed -> ordered steps.  Pure: values in, values out; no engine, no file, no clock.

Reading order: ``allocate`` and ``cut`` (what is decided once), ``image`` (what each node is to have), ``steps`` (what
can be done), ``diff`` (what must be done), ``order`` (in which order), ``plan`` (the whole, with its refusals).
"""
