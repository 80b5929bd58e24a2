"""Parameter groups by name and by kind of module."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Selector: TypeAlias = str | type[nn.Module]


def param_groups(
    model: nn.Module,
    overrides: Mapping[Selector, Mapping[str, Any]] | None = None,
    *,
    full_embeddings: bool = False,
) -> list[dict[str, Any]]:
    """Sort the parameters of a model into groups by the options that they shall have.

    Parameters
    ----------
    model
        Its parameters that require gradients are sorted, each once, under the names that
        `model.named_parameters()` gives them.
    overrides
        Options of the parameters that a selector finds: a pattern for their names, of `fnmatch`
        ("*.bias"), or a type of the module that they belong to. Options are those of an optimizer's
        groups ("lr", "weight_decay", "state_bits", ...). Where several selectors find a parameter
        it has the options of all, and of one option the value of the last selector.
    full_embeddings
        Whether the weights of all `torch.nn.Embedding` have 32-bit states. Default False.

    Returns
    -------
    list of dict
        Groups for an optimizer, in the order of their first parameters; with the parameters' names
        if torch takes them (2.6 and later).

    Raises
    ------
    ValueError
        If a selector finds no parameter, or among its options are "params".
    TypeError
        If a selector is neither a pattern nor a type.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100))
    >>> groups = optim8.param_groups(
    ...     model, {"*.bias": {"weight_decay": 0.0}}, full_embeddings=True
    ... )
    >>> for group in groups:
    ...     print([name for name, _ in group.pop("params")], group)
    ['0.weight'] {'state_bits': 32}
    ['1.weight'] {}
    ['1.bias'] {'weight_decay': 0.0}
    >>> optimizer = optim8.AdamW(optim8.param_groups(model, full_embeddings=True))
    """
    chosen: list[tuple[Selector, Mapping[str, Any]]] = [*(overrides or {}).items()]
    _check(chosen)
    if full_embeddings:
        chosen.insert(0, (nn.Embedding, {"state_bits": 32}))
    owners: dict[Tensor, list[nn.Module]] = {}
    for module in model.modules():
        for param in module.parameters(recurse=False):
            owners.setdefault(param, []).append(module)
    groups: list[tuple[dict[str, Any], list[tuple[str, Tensor]]]] = []
    unused = set(overrides or {})
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        options: dict[str, Any] = {}
        for selector, values in chosen:
            if _selects(selector, name, owners[param]):
                options.update(values)
                unused.discard(selector)
        for known, params in groups:
            if known.keys() == options.keys() and all(_same(known[k], options[k]) for k in known):
                params.append((name, param))
                break
        else:
            groups.append((options, [(name, param)]))
    if unused:
        selector = next(selector for selector, _ in chosen if selector in unused)
        found = repr(selector) if isinstance(selector, str) else selector.__name__
        raise ValueError(f"overrides: {found} finds no parameter that requires a gradient")
    takes_names = torch.__version__ >= "2.6"
    return [
        {"params": params if takes_names else [param for _, param in params], **options}
        for options, params in groups
    ]


def _check(chosen: list[tuple[Selector, Mapping[str, Any]]]) -> None:
    for selector, values in chosen:
        if not isinstance(selector, str | type):
            raise TypeError(f"overrides: found {selector!r}, expected a pattern or a type")
        if "params" in values:
            raise ValueError(f"overrides: {selector!r} has 'params', expected options only")


def _selects(selector: Selector, name: str, owners: list[nn.Module]) -> bool:
    if isinstance(selector, str):
        return fnmatchcase(name, selector)
    return any(isinstance(owner, selector) for owner in owners)


def _same(a: object, b: object) -> bool:
    # Of two equal tensors each is a learning rate of its own.
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)
