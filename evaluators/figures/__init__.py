"""Figures of the measurements: one file a measurement, one style file for all, and one place that
writes files.

A figure is made of the tidy tables of a report, runs under one another (first column `run`). A
function returns None where there is nothing to draw. Nothing here calls pyplot, opens a window or
leaves a setting of matplotlib changed.
"""
