"""Trace bundles: the raw event log with payloads, its writer, and the reducer that replays it.

A bundle is a directory: `manifest.json`, `trace.jsonl` (one event per line), `payloads/N.json`. It holds whole
conversations and is written only where an operator names a directory for it.
"""
