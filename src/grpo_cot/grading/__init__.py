"""Verdicts on what was answered, and the figures that follow."""
