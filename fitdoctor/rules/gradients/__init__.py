"""Gradients that explode, vanish, spike or are cut."""
