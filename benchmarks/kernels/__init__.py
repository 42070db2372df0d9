"""Hot kernels, timed by pytest-benchmark: ``pytest benchmarks/kernels`` (no part of the tests)."""
