"""Values only: what facts, rules, cells and effects are. No I/O, no clock, no other module."""
