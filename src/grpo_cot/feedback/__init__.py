"""Sentences of student feedback, generated."""
