"""Loss and model that do not fit together."""
