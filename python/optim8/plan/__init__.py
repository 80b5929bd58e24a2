"""What a training run will need and cost, before it starts.

A person with a model and a machine asks, before the first step: does it fit, how long will it take,
what will it cost, what should I train, and what does another optimizer buy? `optim8 plan` answers
from published methods; the modules here are the same answers as a library. Each is one concept, and
names the source of every formula and number that it uses.

``quantity``
    Numbers with units: how they are read from the command line, and how they are shown.
``entries``
    The data files: hardware, prices, grids and trends, each entry with its source and date; how
    they are read, and how users add their own.
``memory``, with ``model``, ``states``, ``activations`` and ``sharding``
    Bytes of a run: shapes of a model, states of an optimizer, what a backward pass keeps, what
    each device holds.
``flops``, ``frontier``, ``loss``, ``compute``
    Operations of a training run, and what size they are best spent on.
``cost``, with ``hardware``
    Time and money: what devices can do and cost.
``carbon``, with ``measure``
    Energy and emissions, planned or measured.
``runs``, ``bootstrap``, ``fit``, ``transfer``
    Laws fitted to tables of runs: of the loss, and of a downstream error.
``answer``, ``cli``
    What every command prints (a table or JSON, and all that it assumed), and the commands.

Nothing in the optimizers imports this package, and it imports torch only for a question about a
module of torch.
"""
