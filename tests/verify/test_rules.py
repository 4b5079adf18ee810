from pathlib import Path

import pytest

import verify
from codec.errors import UsageError
from verify.finding import Finding
from verify.rules import RULES, Rule, add, find, page

PAGE = Path(verify.__file__).parents[1] / "docs/rules.md"


def test_the_page_is_printed_from_the_table():
    """`python -m verify.rules > docs/rules.md` makes it again."""
    text = PAGE.read_text()
    assert text == page()
    assert all(f"\n## {rule}\n" in text for rule in RULES)
    assert max(map(len, text.splitlines())) <= 120


def test_every_row_says_what_and_whence():
    for rule in RULES.values():
        assert rule.title, rule.id
        assert rule.text.strip().endswith("."), rule.id
        assert rule.source.strip().endswith("."), rule.id
    numbers = [rule.number for rule in RULES.values() if rule.number]
    assert len(set(numbers)) == len(numbers)


def test_a_finding_is_about_a_rule_of_the_table():
    with pytest.raises(UsageError, match=r"no rule `bytes\.cup` is in the table of rules; did you mean `bytes\.cap`\?"):
        Finding(rule="bytes.cup", level="pass", message="")


def test_a_rule_is_added_once():
    rule = add(Rule(id="toy.seven", title="No sevens", text="No file has seven bytes.", source="own."))
    try:
        assert find("toy.seven") is rule
        with pytest.raises(UsageError, match=r"rule `toy\.seven` is in the table already: No sevens"):
            add(rule)
    finally:
        del RULES["toy.seven"]
    with pytest.raises(UsageError, match=r"no rule `toy\.seven`"):
        find("toy.seven")


@pytest.mark.parametrize("name", ["seven", "Toy.seven", "toy.seven.eight", "toy. seven", ""])
def test_ids_have_two_parts(name):
    with pytest.raises(UsageError, match="is no id of a rule"):
        Rule(id=name, title="", text="", source="")
