"""Data sets: sources, their rows in one form, and the overlap of their splits."""
