"""How gunicorn serves the Flask and the Django example: one process, whose memory counts."""

from __future__ import annotations

from pathlib import Path

chdir = str(Path(__file__).parent)
workers = 1
raw_env = ["WEB_CONCURRENCY=1"]  # tells guardrail that there is no other; else share a store
threads = 8
