"""What a person reads: executed notebooks, figures, findings and verdicts in words, the README's opening, the book,
the explorer.

Here belongs how numbers are shown and traced. Not here: how they are computed or compared.
"""
