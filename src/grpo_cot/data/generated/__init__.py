"""Generated pairs of a chosen and a rejected answer."""
