"""The answers of base and trained model to the evaluation sets, and their likelihoods of the solutions."""
