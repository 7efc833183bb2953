"""The report of one run or several: what is in it, what it needs, and how it is written.

Statistics and figures are made elsewhere (evaluators.shifts, evaluators.figures); here they are put
together, and what cannot be made is said.
"""
