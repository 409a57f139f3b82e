"""One run: the recipe and its settings, augmentation, evaluation, what is kept at the end.

Here belongs what happens between a run and its record. Not here: which runs there are, and who trains them.
"""
