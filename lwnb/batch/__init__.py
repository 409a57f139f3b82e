"""Which runs are missing and who trains them: refusals, estimates, workers, progress, tuning, preparation of pages.

Here belongs what works on many runs at once. Not here: a single training, and the report.
"""
