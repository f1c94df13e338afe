"""One upstream request over a WebSocket, over HTTP, or from a file, behind one seam (`base.py`).

May import `core`; knows no session, no gRPC and no telemetry.
"""
