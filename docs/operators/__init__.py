"""The pages of the commands, made by running these: scripts/questions."""
