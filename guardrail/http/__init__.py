"""Guarding an HTTP API: who asks for what, the answers clients understand, one request's life."""
