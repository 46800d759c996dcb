"""Where job requests come from."""
