"""Counters in a file that all processes of one host share, kept across restarts."""
