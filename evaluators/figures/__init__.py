"""Figures of the measurements: one file per measurement, one style file for all.

A figure is drawn from the tidy tables of a report, in which the rows of all runs follow one another
(first column `run`). A function returns None where there is nothing to draw. Nothing here calls
pyplot, opens a window or leaves a setting of matplotlib changed; only `saving` writes files.
"""
