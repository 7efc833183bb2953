"""Where the rows of a task set come from: files, folders, the hub."""
