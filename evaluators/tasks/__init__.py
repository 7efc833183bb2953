"""Task sets: the problems that the models are asked, and their gold answers."""
