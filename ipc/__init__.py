"""Frames, messages and channels between the supervisor and its children."""
