"""Connections: the pool that they come from, and the quick path of psycopg 3."""
