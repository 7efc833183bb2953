"""One run: its settings, its plan, its work, and how it is carried out."""
