"""Data sets as tensors in memory: archives and folders, readers, images, splits, copies.

Here belongs everything between a file on disk and an image with its label. Not here: augmentation,
and what a network expects.
"""
