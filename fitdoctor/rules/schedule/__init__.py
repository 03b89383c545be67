"""Learning rate schedules that do not fit the run."""
