"""May this recipe run? Asked by `make check` and by the step audit."""
