"""What the log itself lacks or lost."""
