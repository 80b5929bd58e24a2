"""Benchmarks of optim8 against torch and other 8-bit optimizers: `python -m benches --help`.

Read in this order: `timing` (how things are compared), `cases` and `optimizers` (what is compared),
`answer` (what must be right before it is timed), `step`, `loop`, `codec`, `memory`, `fidelity` and
`minimize` (the studies), `record`, `report` and `plot` (what becomes of the numbers).
"""
