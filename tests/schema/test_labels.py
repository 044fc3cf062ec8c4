from __future__ import annotations

import pytest

from autoseg.schema.dataset import label_scheme


def test_plain_classes_in_order_of_their_value() -> None:
    scheme = label_scheme({"b": 2, "background": 0, "a": 1}, None)
    assert scheme.names == ("background", "a", "b")
    assert scheme.foreground == {"a": (1,), "b": (2,)}
    assert not scheme.regions and scheme.outputs == 3


@pytest.mark.parametrize(
    ("labels", "order", "says"),
    [
        ({"a": 0}, None, "background"),
        ({"background": 0}, None, "at least two"),
        ({"background": 0, "a": 2}, None, "without gaps"),
        ({"background": 0, "a": 1, "ignore": 7}, None, "highest value plus one"),
        ({"background": 0, "a": 1, "ignore": (2, 3)}, None, "one value"),
        ({"background": 0, "whole": (1, 2), "core": 2}, None, "regions_class_order"),
        ({"background": 0, "whole": (1, 2), "core": 2}, (1,), "regions_class_order"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(labels: dict, order: tuple | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        label_scheme(labels, order)


BRATS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}
NESTED = {"background": 0, "WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": 1}


def painted(scheme) -> dict[int, int]:
    """Value -> what a network without any error would write there."""
    return {
        value: [paint for paint, member in zip(scheme.paint, scheme.members, strict=True) if value in member][-1]
        for value in scheme.values
        if value
    }


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (BRATS, (1, 2, 3)),
        (NESTED, (4, 2, 1)),
        (NESTED, (4, 3, 1)),
        ({"background": 0, "left": (1, 3), "right": (2, 4)}, (1, 2)),
        ({"background": 0, "a": (1, 2), "b": 3}, (2, 3)),
        ({"background": 0, "core": 2, "other": (4, 5)}, (2, 4)),
    ],
)
def test_orders_that_give_the_regions_back(labels: dict, order: tuple) -> None:
    scheme = label_scheme(labels, order)
    for value, became in painted(scheme).items():
        assert [value in member for member in scheme.members] == [became in member for member in scheme.members]


@pytest.mark.parametrize(
    ("labels", "order", "says"),
    [
        (NESTED, (1, 2, 3), r"value 1 would become 3; this works: \[4, 2, 1\]$"),
        (NESTED, (1, 2, 1), r"value 4 would become 1; this works: \[4, 2, 1\]$"),
        (BRATS, (3, 2, 1), r"value 1 would become 3; this works: \[1, 2, 3\]$"),
        (BRATS, (1, 2, 9), r"value 3 would become 9; this works: \[1, 2, 3\]$"),
        (
            {"background": 0, "core": (2, 3), "whole": (1, 2, 3)},
            (2, 1),
            r"value 2 would become 1; this works: \[1, 2\], with labels in the order whole, core",
        ),
        ({"background": 0, "a": (1, 2), "b": (2, 3)}, (1, 2), "no order can, since regions overlap"),
    ],
)
def test_orders_that_lose_a_region_are_refused_with_one_that_works(labels: dict, order: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        label_scheme(labels, order)
