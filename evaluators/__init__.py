"""xsample: records in, numbers out."""
