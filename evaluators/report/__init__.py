"""The report of one run or several: a page, with tables and figures as files.

Statistics and figures are made elsewhere (evaluators.shifts, evaluators.figures). This room puts
them together, and notes what cannot be made and why.
"""
