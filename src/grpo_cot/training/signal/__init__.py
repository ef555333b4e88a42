"""Which prompts teach: a group of completions that are all right, or all wrong, has no advantage to learn from."""
