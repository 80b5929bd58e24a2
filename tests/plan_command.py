"""The command `optim8 plan`, as its tests ask it."""

import json
import os
from unittest import mock

from optim8.cli import main


def ask(capsys, question, *options):
    """Return the JSON of `optim8 plan`."""
    main(["plan", *question.split(), *options, "--json"])
    return json.loads(capsys.readouterr().out)


def shown(capsys, question):
    """Return the table of `optim8 plan`, on a wide screen, with single spaces."""
    with mock.patch.dict(os.environ, COLUMNS="200"):
        main(["plan", *question.split()])
    return " ".join(capsys.readouterr().out.split())
