"""The `xsample` command."""
