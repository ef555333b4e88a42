"""Pages: a run's report, and the index over all runs."""
