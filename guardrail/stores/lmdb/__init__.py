"""Counters in a file that all processes of one host share, kept across restarts."""

from __future__ import annotations

from guardrail.stores.lmdb.store import AsyncLmdbStore, LmdbStore

__all__ = ["AsyncLmdbStore", "LmdbStore"]
