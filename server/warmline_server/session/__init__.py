"""The shells that own tasks: sessions, lanes, the slot's keeper and calls. Decisions are in `core`.

May import `core` and `transport`; never grpc, never telemetry.
"""
