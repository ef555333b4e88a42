"""Teach a small language model to reason with GRPO, and prove that it worked."""
