"""What was measured, as files: runs, timings, footprints, failures, the machine and the clock.

Here belongs how a record is saved, found, tabled and published. Not here: what the numbers mean,
and how they come about.
"""
