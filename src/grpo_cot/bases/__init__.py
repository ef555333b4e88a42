"""Base models: where they come from, how one is drawn from scratch, how one is pretrained."""
