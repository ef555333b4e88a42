"""The Hub's layout, the model card, the push."""
