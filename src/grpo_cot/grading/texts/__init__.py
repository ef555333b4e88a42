"""Texts that models completed: the verdicts of the judge, the reward model and the rewards, and what follows."""
