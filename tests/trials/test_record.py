"""Records to and from JSON."""

import json

import pytest

from detector.base.errors import ConfigError
from trials.record import records_from_json, records_to_json


def test_equal_parts_of_records_are_one_object(tiny_study):
    records = tiny_study.records
    read = [records_from_json(records_to_json(record))[0] for record in records]
    assert read == records == records_from_json(records_to_json(records))
    assert len({id(record.recipe) for record in read}) == len({r.recipe for r in records})
    equal = next(r for r in read[1:] if r.detector.head == read[0].detector.head)
    assert equal.detector.head is read[0].detector.head


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("recipe", "optimizer", "lr"), "a", "^recipe.optimizer.lr: 'a' must be a number"),
        (("recipe", "optimizer", "lr"), 10**400, "^recipe.optimizer.lr: 10+ is too large a number"),
        (("recipe",), None, "^recipe: None must be a mapping"),
        (("detector", "head", "kindd"), 1, "^detector.head.kindd: unknown key"),
        (("detector", "neck"), 3, "^detector.neck: 3 must be a mapping"),
    ],
)
def test_an_error_names_the_part(tiny_study, path, value, message):
    plain = json.loads(records_to_json(tiny_study.records[0]))
    *parents, key = path
    part = plain
    for parent in parents:
        part = part[parent]
    part[key] = value
    with pytest.raises(ConfigError, match=message):
        records_from_json(json.dumps(plain))
