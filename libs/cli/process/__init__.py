"""Starting, supervising and probing processes."""
