"""One file for each training method, with the same five names in each."""
