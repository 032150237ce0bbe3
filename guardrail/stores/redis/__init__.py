"""The stores on Redis and Valkey: counters shared by hosts, one script call a decision.

The client is our own, on hiredis: what a general client does around each command (a lap through a
pool, retries that repeat what may have been counted, a task per reply) costs more than deciding,
and batching concurrent decisions needs a connection that many of them share.
"""
