"""The rows of each table: one statement for each question, in one round trip where the database can."""
