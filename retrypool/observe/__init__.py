"""What a pool tells of itself."""
