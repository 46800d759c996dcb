"""Measuring warm starts: one question a file, ours and the floor in the same run."""
