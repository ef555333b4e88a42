"""Recipe sections compared with the installed libraries: keys and values."""
