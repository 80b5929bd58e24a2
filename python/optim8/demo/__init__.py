"""The demo: the same small GPT trained with 32-bit and with 8-bit AdamW.

It answers, in two minutes and with nothing but this package and Python itself, the question that
anybody has who is about to swap two lines of a training script: what do I get, and does the loss
stay the same? `optim8 demo` trains a byte-level GPT on the text of Python's standard library
twice, from the same seed and with the same batches: with ``torch.optim.AdamW(fused=True)``, then
with ``optim8.AdamW``. It prints what each took and writes a plot of both loss curves.

Each run is a process of its own, so that its peak memory can be measured and neither finds the
other's caches. The files, in order of dependency:

``sizes``
    Which model is trained, for how long.
``text``, ``model``, ``memory``
    The data, the GPT, and how a process's peak memory is measured.
``train``
    One run, and its result; the program of the child process.
``report``
    The table and the plot of two results.
``command``
    The command: start both runs, show their progress, report.
"""
