"""What GRPO pays for; each reward is a function with its promise beside it."""
