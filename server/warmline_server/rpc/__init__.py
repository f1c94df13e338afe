"""The gRPC edge: translates, admits, and turns failures into statuses. The only package that imports grpc.

May import everything but `app`.
"""
