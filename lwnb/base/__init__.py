"""What every other room stands on: where things lie, the project's errors, files that are whole on disk.

Here belongs what knows nothing of images, networks or runs. Not here: anything that one room alone needs.
"""
