"""Pairs of a right and a wrong answer, generated."""
