"""The run directory: Arrow schemas, atomic parts, resume, verification."""
