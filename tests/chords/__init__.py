"""Chords: every shape, every failure, and exactly one body whoever dies."""
