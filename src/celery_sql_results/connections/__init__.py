"""Connections: the engines and pools that they come from, the quick path of psycopg 3, and one that threads share."""
