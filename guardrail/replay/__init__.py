"""Recorded traffic through a guard: running it, adding it up, writing down each decision."""
