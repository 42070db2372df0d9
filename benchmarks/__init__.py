"""Benchmarks: what is measured, how, and against whom; docs/ holds the figures."""
