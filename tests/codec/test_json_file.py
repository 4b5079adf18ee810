"""JSON files that say one thing to one reader and another to the next."""

import json

import pytest

from codec.errors import InputError
from codec.storage.json_file import read_json_object


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"val_bpb": 0.1, "val_bpb": 1.2}', "'val_bpb' stands there twice"),
        ('{"eval": {"L": 1, "S": 1, "S": 2}}', "'S' stands there twice"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, text, words):
    (tmp_path / "claims.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_json_object(tmp_path / "claims.json")


def test_names_may_come_again_in_other_objects(tmp_path):
    said = {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}
    (tmp_path / "claims.json").write_text(json.dumps(said))
    assert read_json_object(tmp_path / "claims.json") == said
