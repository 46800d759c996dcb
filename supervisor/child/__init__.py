"""What runs in the children: the fork server and the workers."""
