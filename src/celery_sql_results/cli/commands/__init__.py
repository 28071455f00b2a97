"""The commands, one module for each, whose name is that of the command."""
