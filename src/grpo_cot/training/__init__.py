"""The recipe's phases, trained one after the other."""
