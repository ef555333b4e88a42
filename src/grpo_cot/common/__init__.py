"""What every step shares: files, errors as sentences, and the frame of an entry point."""
