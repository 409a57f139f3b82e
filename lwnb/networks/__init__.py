"""From a name to a network: built, with weights, preprocessing and counts.

Here belongs what holds for a network wherever it is trained or run. Not here: training it, or writing it for a device.
"""
