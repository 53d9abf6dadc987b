"""The commands of `python -m retrypool` that work with the user's own workers and journals."""
