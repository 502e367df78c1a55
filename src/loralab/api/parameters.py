"""Parameter budgets from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralab.api.arguments import Settings, assignments, in_python
from loralab.tables import to_frame

if TYPE_CHECKING:
    import pandas


@in_python
def budget(recipe: str = "quickstart", settings: Settings = (), *, max_trainable: int) -> pandas.DataFrame:
    """Find the largest rank within a parameter budget for each choice of adapted matrices and layers. Loads no weights.

    Parameters
    ----------
    recipe : str, default "quickstart"
        A recipe, a settings file or a data file, which names the encoder and the classes.
    settings : mapping or sequence of str
        Settings by dotted name, such as {"model.base": "roberta-base"}.
    max_trainable : int
        The budget: adapters and head together.

    Returns
    -------
    DataFrame
        Columns targets, layers, rank, trainable and left, the parameters below the budget; most trainable parameters first.

    Raises
    ------
    LoralabError
        For a budget without room for an adapter, and for a variant other than LoRA.
    """
    from loralab.info import budget_options

    options = budget_options(recipe, assignments(settings), max_trainable)
    rows = [("+".join(own.targets), own.layers or "all", own.rank, own.trainable, max_trainable - own.trainable) for own in options]
    return to_frame(("targets", "layers", "rank", "trainable", "left"), rows)
