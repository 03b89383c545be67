"""How rules look at a run: each module is one view of its signals, made once and shared by the rules that need it."""
