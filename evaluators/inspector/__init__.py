"""One sample of a run, token by token: as a page that opens from disk, and in the terminal."""
