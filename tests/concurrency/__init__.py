"""Many processes and threads at once, on real servers: races, overlapping writes, forks."""
