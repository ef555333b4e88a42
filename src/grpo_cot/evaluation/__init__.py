"""What base and trained model answer to the evaluation sets, and how likely they find the solutions."""
