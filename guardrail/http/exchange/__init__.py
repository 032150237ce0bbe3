"""One request from its head to its settlement; no input or output of its own."""
