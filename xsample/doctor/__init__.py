"""Is this machine able to run? What is installed, and what the machine offers."""
