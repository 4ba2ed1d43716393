"""Starting people's servers."""
