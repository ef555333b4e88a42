"""What the Hugging Face Hub accepts, names and licences, and its failures as sentences."""
