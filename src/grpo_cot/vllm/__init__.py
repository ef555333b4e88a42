"""How vLLM is asked to load a base and to sample."""
