"""Jobs from a LiveKit server: its words are spoken here and nowhere else."""
