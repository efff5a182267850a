"""Deliberate defects: the proof that the checks can fail (`make mutants`).

| module | is |
|---|---|
| `defects` | the list: what is wrong, the edit that makes it so, and the check that catches it |
| `trial` | one defect put into a copy of the tree, and its check run there |
| `table` | the list as the table of `docs/GUARANTEES.md` |
"""
