"""What records say: intervals, comparisons, claims and their rules, what fits a device.

Reads records and needs no torch. Not here: words for a reader, figures, and anything that trains or measures.
"""
