"""How fast and how narrow ehrready is: what it reads, the limits it is held against, and its peers."""
