"""One file for each way to drive a pool: ours, its peers, and the machine's own floor."""
