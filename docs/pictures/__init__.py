"""Pictures of the documentation, drawn from texts beside this file: scripts/pictures."""
