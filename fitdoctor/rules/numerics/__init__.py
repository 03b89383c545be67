"""Numbers that stopped being numbers."""
