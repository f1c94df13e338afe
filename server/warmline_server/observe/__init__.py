"""What leaves the process about its own work: spans, logs, the ring of recent attempts. All are observers.

May import `core` and `session.observer`.
"""
