"""The generator of the synthetic sample data; run it as ``python scripts/make_sample_data.py``."""
