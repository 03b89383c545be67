"""How examples reach the model."""
