"""What users configure, as values."""
