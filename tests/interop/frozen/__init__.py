"""The Python stub of the contract as it was first published; it is never generated again.

`v1` is a copy of client_stubs/python/warmline/v1 of that day, in a package of another name. It shares its descriptors'
names with today's stub, so the two cannot live in one process: `play.py` runs in a process of its own.
"""
