"""Results that could not be stored wait in a directory, until a process reaches the database.

``entry`` is one write as a file, ``directory`` keeps the files, ``replay`` stores them, and ``contract`` tells when.
"""
