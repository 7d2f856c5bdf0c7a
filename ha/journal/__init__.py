"""The journal in slice 0 of the quorum drives: what lies where, is it whole, which record is the newest.

Everything here is pure: bytes and values in, values out.  Reading and writing drives is the adapters' work.
"""
