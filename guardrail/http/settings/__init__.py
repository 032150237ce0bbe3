"""Settings: from arguments, the environment and files to what a door is made of."""
