"""A network for a device: exported, quantised, run by edge runtimes, timed by the measuring protocol.

Here belongs what a file for a device needs. Not here: which files a page wants, and what its timings mean.
"""
