"""Recorded traffic: files of requests, in our own form or translated by a map."""
