"""A run's Parquet parts as DuckDB views, out of core."""
