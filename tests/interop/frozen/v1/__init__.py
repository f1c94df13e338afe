"""The frozen stub."""
