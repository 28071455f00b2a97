"""Waiting for results, with a real second process as the writer: on every database, in every pool, through faults."""
