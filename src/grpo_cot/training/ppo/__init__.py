"""Proximal policy optimisation: its mathematics, and a trainer on Transformers' own."""
