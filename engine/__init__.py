"""xsample: problems in, records out."""
