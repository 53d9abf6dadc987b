"""What does: the pool, its worker threads, its watchdog."""
