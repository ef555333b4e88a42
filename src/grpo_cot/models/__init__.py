"""Models and tokenizers, loaded alike everywhere."""
