"""What decides. Pure: no threads, no clock, no randomness, no logging; `now` is an argument."""
