"""The planted-defect benchmark; run ``python -m benchmarks.planted``."""
