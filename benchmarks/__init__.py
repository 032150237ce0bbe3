"""What decisions cost: every figure a ratio, taken in one run, round by round in turn."""
