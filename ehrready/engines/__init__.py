"""Engines that hold the canonical tables and run the measures."""
