"""JSON of this program that is damaged or hostile: always a ValueError."""

import pytest

from detector.base.json_file import read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' is listed twice"),
        ('{"a": ' + "9" * 5_000 + "}", "5000 digits"),
        ('{"a": ', "Expecting value"),
        ("", "Expecting value"),
        (b"\xff", "codec can't decode"),
    ],
)
def test_what_cannot_be_read_is_a_value_error(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "x.json").write_text('\ufeff{"a": [1, null]}', encoding="utf-8")
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
