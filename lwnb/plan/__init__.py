"""What there is and what to ask for: the tables of facts, parameters, a run and its key, studies.

Pure: nothing here reads an image or needs torch, so that a plan, a help text or a refusal costs nothing.
Not here: whatever does the work that a row or a parameter names.
"""
