"""The sources of a task set's rows: files, folders and the Hugging Face hub."""
