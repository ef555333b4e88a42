"""Generated word problems."""
