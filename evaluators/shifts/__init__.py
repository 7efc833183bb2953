"""Statistics of shifts: how far the two policies are apart, where, and on which tokens. One file a
measurement.

A measurement is a function from the tables of a run to one small tidy Arrow table; figures and CSV
files are made of these. It runs out of core: the token rows are scanned by DuckDB and only counts
and sums come back.
"""
