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
