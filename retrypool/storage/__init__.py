"""What remembers the tasks of a pool when its process is gone."""
