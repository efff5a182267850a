"""The figures of docs/PERFORMANCE.md: `python -m benchmarks [P1 P5 …] [--quick] [--write FILE]`.

One module a figure; `core` has what they share, `market` the trades they are fed, `document` the page that is written.
"""
