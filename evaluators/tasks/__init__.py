"""Task sets: what is asked, and the gold answers."""
