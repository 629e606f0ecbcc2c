"""The tables that can be reproduced, their rows, and the scales, as data.

A row is a recipe and its changes. A scale says which data set, which network
size and how many images. A table is rows and columns, at any scale.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from atat_tf.errors import expect_known, registered
from atat_tf.evaluation import printed_table
from atat_tf.runs import naming

AUTOATTACK = "standard"
SHIFT_COLUMN = "pgd20"
# Before the second group of units: half-resolution maps, after activation.
_LOWER_LAYER = "group2_0_act1"


@dataclasses.dataclass(frozen=True)
class Row:
    """One trained network for each seed.

    Attributes:
      key: the name of its folder and in --rows.
      label: as printed.
      recipe: configs/RECIPE.py.
      changes: {field of the recipe: value}.
      equal_cost_to: key of a row whose training, its teacher's included, this
        one's epochs cost at least as much as; "" for the recipe's epochs.
    """

    key: str
    label: str
    recipe: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    equal_cost_to: str = ""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of the paper's protocol is run.

    Attributes:
      name: as in --scale.
      recipe: a recipe of recipes, as configs/small.py, or "".
      changes: {field: value} of every row's config.
      data_sets: {the paper's data set: the one in its place}.
      autoattack_images, shift_images: the first so many test images; None for
        all. The paper's columns are always on all.
    """

    name: str
    recipe: str = ""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_sets: dict[str, str] = dataclasses.field(default_factory=dict)
    autoattack_images: int | None = None
    shift_images: int | None = 1000

    def data_set(self, papers: str) -> str:
        """Returns the data set that stands for one of the paper's."""
        return self.data_sets.get(papers, papers)


@dataclasses.dataclass(frozen=True)
class Table:
    """What is compared.

    Attributes:
      name: as in --table.
      title: as printed.
      data_set: the paper's, "cifar10" or "cifar100".
      rows: {key of a row: its line in the paper's table, or ""}.
      columns: of the table, see `columns.column`.
      bn_modes: batch-norm statistics at evaluation.
      reference: key of the row that the others are tested against.
      shift: whether attention shifts are measured instead of accuracies.
    """

    name: str
    title: str
    data_set: str
    rows: dict[str, str]
    columns: tuple[str, ...]
    bn_modes: tuple[str, ...] = ("frozen",)
    reference: str = "atat"
    shift: bool = False

    def columns_in(self, bn_mode: str) -> tuple[str, ...]:
        """Returns the columns that are run in a batch-norm mode.

        AutoAttack is the yardstick, with frozen statistics alone. With those of
        the batch no image may leave it, and every step would be on all.
        """
        if bn_mode == "frozen":
            return self.columns
        return tuple(c for c in self.columns if c != AUTOATTACK)

    def paper(self, key: str) -> dict[str, float]:
        """Returns {column: percent} of the paper's line for a row, or {}."""
        return printed_table.paper_row(self.data_set, self.rows[key]) or {}


def _weights(attention_weight, logit_weight=1.0):
    return {
        "defense.attention_weight": attention_weight,
        "defense.logit_weight": logit_weight,
    }


def _columns(data_set):
    """Returns the columns of the paper's table, and AutoAttack."""
    return (*printed_table.PAPER[data_set]["columns"], AUTOATTACK)


ROWS = {
    row.key: row
    for row in (
        Row("standard", "Standard", "standard"),
        Row("at", naming.METHODS["at"], "at"),
        Row("madry", naming.METHODS["madry"], "madry"),
        Row("alp", "Eq. 6 alone", "alp"),
        Row("tla", "TLA", "tla"),
        Row("trades", "TRADES", "trades"),
        Row("atat", "ATAT, λ = (1, 1)", "atat"),
        Row("released_cifar10", "Released code, CIFAR-10", "released_cifar10"),
        Row(
            "released_cifar100", "Released code, CIFAR-100", "released_cifar100"
        ),
        # Fig. 5, all from the teacher's weights, so that λ alone differs.
        Row(
            "lambda_0_0", "AT (mixture), λ = (0, 0)", "atat", _weights(0.0, 0.0)
        ),
        Row("lambda_1_0", "λ = (1, 0)", "atat", _weights(1.0, 0.0)),
        Row("lambda_0_1", "λ = (0, 1)", "atat", _weights(0.0, 1.0)),
        Row("lambda_0.1_1", "λ = (0.1, 1)", "atat", _weights(0.1)),
        Row("lambda_10_1", "λ = (10, 1)", "atat", _weights(10.0)),
        Row(
            "atat_lower_layer",
            f"ATAT at {_LOWER_LAYER}",
            "atat",
            {"defense.layers": (_LOWER_LAYER,)},
        ),
        Row(
            "atat_both_layers",
            f"ATAT at {_LOWER_LAYER} and features",
            "atat",
            {"defense.layers": (_LOWER_LAYER, "features")},
        ),
        Row(
            "atat_random_start",
            "ATAT from random weights",
            "atat",
            {"student_start": "random"},
        ),
        # configs/final.py, all at one cost but TRADES, which takes twice it.
        Row("final_at", "AT (adversarial only)", "control_at"),
        Row("final_trades", "TRADES", "control_trades"),
        Row("final_alp", "ALP, half the mean square", "pairing_only"),
        Row("final_atat", "ATAT, as written", "as_written"),
        Row("final_mse", "ATAT, half the mean square", "mse"),
        Row("at_equal_cost", "AT (mixture), ATAT's cost", "at", {}, "atat"),
        Row("alp_equal_cost", "Eq. 6 alone, ATAT's cost", "alp", {}, "atat"),
    )
}

TABLES = {
    table.name: table
    for table in (
        Table(
            "1",
            "Table 1: CIFAR-10",
            "cifar10",
            {
                "standard": "standard",
                # The paper's AT-PGD are Madry's published figures.
                "at": "at",
                "madry": "at",
                "alp": "alp",
                "tla": "tla",
                "trades": "",
                "atat": "atat",
                "released_cifar10": "atat",
                "released_cifar100": "",
            },
            _columns("cifar10"),
        ),
        Table(
            "2",
            "Table 2: CIFAR-100",
            "cifar100",
            {
                "standard": "standard",
                "at": "at",
                "madry": "at",
                "alp": "alp",
                "tla": "tla",
                "trades": "",
                "atat": "atat",
                "released_cifar10": "",
                "released_cifar100": "atat",
            },
            _columns("cifar100"),
        ),
        Table(
            "ablation",
            "Ablation: λ = (λ1, λ2), layer, start, cost",
            "cifar10",
            {
                "standard": "standard",
                "at": "at",
                "alp": "alp",
                "atat": "atat",
                **{
                    row.key: ""
                    for row in ROWS.values()
                    if row.changes or row.equal_cost_to
                },
            },
            _columns("cifar10"),
        ),
        Table(
            "protocol",
            "Protocol: batch-norm statistics at evaluation",
            "cifar10",
            {
                "at": "at",
                "atat": "atat",
                "released_cifar10": "atat",
                "released_cifar100": "",
            },
            _columns("cifar10"),
            bn_modes=("frozen", "batch"),
        ),
        Table(
            "final",
            "Final of the screening's size",
            "cifar10",
            {
                "standard": "",
                "final_at": "",
                "final_trades": "",
                "final_alp": "",
                "final_atat": "",
                "final_mse": "",
            },
            ("clean", AUTOATTACK),
            reference="final_at",
        ),
        Table(
            "shift",
            "Attention shift and being broken",
            "cifar10",
            {"standard": "", "at": "", "alp": "", "atat": ""},
            ("clean", SHIFT_COLUMN),
            shift=True,
        ),
    )
}

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "tiny",
            changes={
                "backbone.depth": 10,
                "backbone.width": 1,
                # All rows and AutoAttack are to fit into 20 minutes.
                "num_epochs": 3,
                "teacher_num_epochs": 8,
            },
            data_sets={"cifar10": "digits"},
            autoattack_images=64,
        ),
        Scale("small", recipe="small", autoattack_images=1000),
        Scale("final", recipe="final", autoattack_images=1000),
        Scale("paper"),
    )
}


def table(name: str) -> Table:
    """Returns the Table of that name.

    Raises:
      InputError: there is none.
    """
    return registered("a table", name, TABLES)


def scale(name: str) -> Scale:
    """Returns the Scale of that name.

    Raises:
      InputError: there is none.
    """
    return registered("a scale", name, SCALES)


def chosen_rows(
    of_table: Table, keys: Sequence[str] | None = None
) -> list[Row]:
    """Returns the Rows of a table, or those of them that `keys` names.

    Raises:
      InputError: a key is not in the table.
    """
    for key in keys or ():
        expect_known(f"a row of table {of_table.name}", key, of_table.rows)
    return [ROWS[key] for key in of_table.rows if not keys or key in keys]
