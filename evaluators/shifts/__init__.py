"""Statistics of shifts: how far the two policies diverge, where, and on which tokens.

One file per measurement. A measurement is a function from the tables of a run to one small tidy
Arrow table, from which figures and CSV files are made. It works out of core: DuckDB scans the rows
of tokens and returns only counts and sums.
"""
