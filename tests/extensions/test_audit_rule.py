"""An audit rule of one's own, with a cheat that it alone catches, registered from outside the toolkit."""

import re
import sys

import pytest

from codec.errors import UsageError
from verify.audit.checks import audit_judges, check
from verify.audit.fresh_process import find_scorer, load_module
from verify.audit.gallery import SCOPE, audit_all
from verify.audit.gallery.exhibits import EXHIBITS
from verify.audit.gallery.page import markdown, wrong
from verify.audit.gallery.toy import stream
from verify.audit.runner import audit
from verify.rules import RULES, page

PLUGIN = '''
from verify.audit.checks import Judgement, check
from verify.audit.gallery.exhibits import exhibit
from verify.audit.gallery.honest import sliding
from verify.audit.gallery.toy import log_softmax, scores_of
from verify.rules import Rule, add

LEAST = 0.2  # nats

add(
    Rule(
        id="toy.certainty",
        title="No target is near certain",
        text="Every score is at least 0.2 nats: nobody knows a text by heart.",
        source="own, for this test.",
        number="T99",
        command="audit",
    )
)


@check("toy.certainty")
def check_certainty(measured):
    """The lowest score of the unchanged stream."""
    base = measured.base
    lowest = int(base.nats.argmin())
    witness = {"position": int(base.positions[lowest]), "nats": float(base.nats[lowest])}
    level = "pass" if witness["nats"] >= LEAST else "fail"
    message = f"the target of position {witness['position']} costs {witness['nats']:.2g} nats"
    return Judgement(level, message, {"positions": len(base.positions)}, witness)


@exhibit("learned by heart", "toy.certainty")
def by_heart(tokens, batch, ranks):
    """Logits are doubled, as if the model were surer than it is."""
    for scored in sliding(tokens, batch, ranks):
        yield scores_of(tokens, scored.positions, log_softmax(2 * scored.log_probs), scored.digest)
'''
SCORER = """
from verify.audit.gallery.honest import sliding
from verify.audit.gallery.toy import Procedure, log_softmax, scores_of


def raised(factor):
    def steps(tokens, batch, ranks):
        for scored in sliding(tokens, batch, ranks):
            yield scores_of(tokens, scored.positions, log_softmax(factor * scored.log_probs), scored.digest)

    return Procedure("by heart", steps)


scorer, surer = raised(2), raised(8)
"""


@pytest.fixture
def plugin(tmp_path):
    """Rule, check and exhibit as a file outside the package."""
    path = tmp_path / "certainty.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def scorer(tmp_path):
    path = tmp_path / "scorer.py"
    path.write_text(SCORER)
    return f"{path}:scorer"


@pytest.fixture
def registered(plugin, monkeypatch):
    """Registered for this test only."""
    monkeypatch.setattr(audit_judges, "_judges", [*audit_judges._judges])
    before = [(registry, dict(registry)) for registry in (RULES, EXHIBITS)]
    load_module(str(plugin))
    yield
    del sys.modules["certainty"]
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.mark.usefixtures("registered")
def test_an_audit_judges_by_it(scorer):
    found = audit(find_scorer(scorer), stream(), SCOPE)
    assert [finding.rule for finding in found.violations] == ["toy.certainty"]
    assert found.findings[-1].evidence["nats"] < 0.2
    assert found.findings[-1].evidence["coverage"] == {"positions": len(stream()) - 1}
    assert found.exit_code == 1


def test_without_it_the_cheat_goes_unseen(scorer):
    assert audit(find_scorer(scorer), stream(), SCOPE).violations == ()


@pytest.mark.usefixtures("registered")
def test_its_exhibit_hangs_in_the_gallery():
    """Run in a fresh process too, which learns of the exhibit from the file that registers it."""
    found = audit_all([EXHIBITS["sliding"], EXHIBITS["learned by heart"]])
    levels = {finding.rule: finding.level for finding in found["learned by heart"].findings}
    assert [rule for rule, level in levels.items() if level != "pass"] == ["toy.certainty"]
    assert wrong(EXHIBITS["learned by heart"], found["learned by heart"]) == []
    assert wrong(EXHIBITS["sliding"], found["sliding"]) == []
    text = markdown(found, SCOPE)
    assert "| T12 | bytes | T99 |\n" in text
    assert "T99 = `toy.certainty`." in " ".join(text.split())
    assert "surer than it is. Must be caught by toy.certainty." in " ".join(text.split())


@pytest.mark.usefixtures("registered")
def test_the_page_of_rules_holds_it():
    assert page().split("## ")[-1].startswith("toy.certainty\n\n*T99: No target is near certain.*")


def test_a_check_needs_a_rule_and_a_rule_one_check():
    with pytest.raises(UsageError, match=r"no rule `toy\.certainty`"):
        check("toy.certainty")
    with pytest.raises(UsageError, match=r"`audit\.prefix` has a check already"):
        check("audit.prefix")


def test_by_the_command_line(pgolf, plugin, scorer):
    done = pgolf("--plugin", plugin, "audit", scorer.replace(":scorer", ":surer"))  # made-up text is harder
    assert done.returncode == 1, done.stderr
    assert re.search(r"^fail +toy\.certainty ", done.stdout, re.MULTILINE)
