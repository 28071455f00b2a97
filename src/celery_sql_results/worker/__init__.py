"""What a worker does beside its tasks."""
