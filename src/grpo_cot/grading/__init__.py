"""Verdicts on the answers, and the figures that follow."""
