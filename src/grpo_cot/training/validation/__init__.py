"""GRPO judged on the validation split while it trains: the answers, the figures, and when to stop."""
