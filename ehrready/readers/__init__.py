"""Readers: one module per format, each a mapping (data, in mappings/) and a small engine."""
