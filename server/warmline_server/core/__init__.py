"""Every decision, as plain synchronous code: no I/O, no clock, no tasks. Time comes in as a number.

Imports the standard library, msgspec and itself. Anything above may import it.
"""
