"""`pgolf audit`: does a scorer see what it must not, and does it count right?"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.data_origin import check_origin
from pgolf.options import SCORES, adaptation, adaptation_options
from pgolf.tables import print_findings

if TYPE_CHECKING:
    import numpy as np

    from verify.audit.perturbations import Scope
    from verify.audit.runner import Audit
    from verify.scoring.adaptation import Adaptation, ScorerName

TARGETS = 256
STRIDE, BATCH = 64, 16  # as `pgolf verify` scores
SCORER_BATCH = 4  # a scorer's windows are to be small, and so are its batches
_file = click.Path(path_type=Path)
_positive = click.IntRange(min=1)


@click.command()
@click.argument("subject", required=False)
@click.option("--gallery", is_flag=True, help="Audit the gallery of cheats and honest scorers instead; no SUBJECT.")
@click.option("--submissions", is_flag=True, help="With --gallery: verify its submissions, not audit its scorers.")
@click.option("--data", type=_file, help="Folder with *_val_*.bin, and *.model for a submission; else made-up text.")
@click.option("--offset", type=click.IntRange(min=0), help="Where the stream begins.  [default: any document, or 0]")
@click.option("--targets", type=click.IntRange(min=16), help="Of the stream.  [default: 256, after a first window]")
@click.option("--batch", type=_positive, help="Windows at a time.  [default: 16 of a submission, 4 of a scorer]")
@click.option("--ranks", type=click.IntRange(min=2), default=2, show_default=True, help="Ranks to split windows over.")
@click.option("--period", "periods", type=_positive, multiple=True, help="Stride, window, chunk of the scorer; repeat.")
@click.option("--cuts", type=_positive, default=40, show_default=True, help="Suffixes to replace.")
@click.option("--sums", type=_positive, default=6, show_default=True, help="Positions to sum over the vocabulary.")
@click.option("--coded", type=_positive, default=64, show_default=True, help="Targets to code and decode.")
@click.option("--queue", is_flag=True, help="The scorer declares that it takes documents out of order.")
@click.option("--digest", help="Digest of the artifact's state, which the first score must come from.")
@click.option("--allow", type=_file, multiple=True, help="File that the scorer may open, such as its artifact; repeat.")
@click.option("--seq-len", type=_positive, help="Windows of a submission, in tokens; default: the model's own.")
@click.option("--stride", type=_positive, help=f"Targets scored by each of them.  [default: {STRIDE}, if they fit]")
@click.option("--threads", type=_positive, help="CPU threads of a submission's process; default: torch's choice.")
@click.option(
    "--score", type=SCORES, help="How a submission is scored.  [default: own if it adapts by itself, else sliding]"
)
@adaptation_options
@click.option("--out", "-o", type=_file, help="With --gallery: write the table as a page of Markdown too.")
@json_option
def audit(
    subject: str | None,
    gallery: bool,
    submissions: bool,
    data: Path | None,
    offset: int | None,
    targets: int | None,
    batch: int | None,
    ranks: int,
    periods: tuple[int, ...],
    cuts: int,
    sums: int,
    coded: int,
    queue: bool,
    digest: str | None,
    allow: tuple[Path, ...],
    seq_len: int | None,
    stride: int | None,
    threads: int | None,
    score: "ScorerName | None",
    out: Path | None,
    as_json: bool,
    **adapting: Any,
) -> int:
    """Run SUBJECT over a short stream and over changed ones, and say what that shows.

    SUBJECT is a submission folder, whose model runs in the sandbox and is scored (--score) from here; or a scorer,
    FILE.py:NAME, where NAME is one (verify/scoring/scorer.py) or a function without arguments that makes one.  Its code
    runs with your rights.  Scale its windows and chunks down to the stream; it runs some hundred times.  A submission
    is sent windows as `pgolf verify` sends them, since a script can tell others, beginning with a document by chance;
    --seq-len, --stride, --batch and --targets make them smaller, and the audit faster.  Exit code 1 when a violation is
    found, or when the gallery shows that the audit misses one.

    \b
    Example:
      pgolf audit out/demo/submission --data out/demo/data --score ttt --targets 128
      pgolf audit scorer.py:sliding --period 64 --period 16
      pgolf audit --gallery
      pgolf audit --gallery --submissions
    """
    from verify.audit.perturbations import Scope

    if gallery == bool(subject):
        raise UsageError("needs a scorer or --gallery, and not both", hint="name the scorer FILE.py:NAME")
    if submissions and not gallery:
        raise UsageError("--submissions needs --gallery", hint="judge a submission of your own by `pgolf verify`")
    if gallery:
        return _submissions(out, as_json) if submissions else _gallery(out, as_json)
    folder = Path(subject or "").is_dir()
    batch = batch or (BATCH if folder else SCORER_BATCH)
    scope = Scope(batch=batch, ranks=ranks, periods=periods, cuts=cuts, sums=sums, coded=coded, queue=queue)
    if folder:
        found = _submission(
            Path(subject or ""), data, offset, targets, scope, seq_len, stride, threads, score, adaptation(**adapting)
        )
    else:
        found = _scorer(subject or "", data, offset or 0, targets or TARGETS, scope, digest, allow)
    if as_json:
        print_json(found.to_dict())
    else:
        print_findings(found.findings)
        click.echo()
        echo(f"{found.subject}: {found.verdict} ({found.coverage['runs']} runs)")
    return found.exit_code


def _submission(
    folder: Path,
    data: Path | None,
    offset: int | None,
    targets: int | None,
    scope: "Scope",
    seq_len: int | None,
    stride: int | None,
    threads: int | None,
    score: "ScorerName | None",
    how: "Adaptation",
) -> "Audit":
    from codec.storage.token_shards import find_shards, find_tokenizer
    from verify import HeldOut, Settings, Submission, window_length
    from verify.audit.submission_audit import audit_submission, stated_length
    from verify.pipeline import check_same_tokenizer

    if data is None:
        raise UsageError("--data is missing", hint="a submission is audited on text: pass --data DIR")
    subject, shards = Submission.open(folder), find_shards(data, "val")[:1]
    length = seq_len or (stated_length(subject) if subject.foreign else window_length(subject))
    stride = stride or min(STRIDE, length)
    settings = Settings(length=length, stride=stride, batch=scope.batch, threads=threads, adaptation=how)
    targets = targets or length + TARGETS
    heldout = HeldOut.read(shards, find_tokenizer(data), targets)
    check_same_tokenizer(subject, heldout)
    check_origin(shards, heldout.tokenizer_sha256)
    text, offset = _piece(shards[0], offset, heldout.targets, scope.bos)
    found = audit_submission(subject, text, scope, settings, score=score, bar=progress)
    return replace(found, coverage={**found.coverage, "offset": offset})


def _piece(shard: Path, offset: int | None, targets: int, bos: int | None) -> tuple["np.ndarray", int]:
    """A piece of the text that begins with a document, as what is scored does, and its offset in the shard.

    Raises: UsageError when so many targets do not follow.
    """
    import numpy as np

    from codec.storage.token_shards import open_shard

    tokens = open_shard(shard)
    last = len(tokens) - 1 - targets
    if last < (offset or 0):
        have = f"{len(tokens) - 1:,} targets, {targets:,} from {offset or 0:,} on are more"
        raise UsageError(f"{shard} holds {have}", hint="lower --offset or --targets")
    if offset is None:
        starts = np.flatnonzero(tokens[: last + 1] == bos)
        offset = int(np.random.default_rng().choice(starts if len(starts) else last + 1))
    return tokens[offset : offset + targets + 1], offset


def _scorer(
    subject: str,
    data: Path | None,
    offset: int,
    targets: int,
    scope: "Scope",
    digest: str | None,
    allow: tuple[Path, ...],
) -> "Audit":
    from verify.audit.fresh_process import ScorerJob, find_scorer, observe
    from verify.audit.measurements import expected_runs
    from verify.audit.perturbations import made_up
    from verify.audit.runner import audit

    scorer = find_scorer(subject)
    tokens = made_up(scorer.vocab_size, targets, scope) if data is None else _held_out(data, offset, targets)
    with progress("auditing", expected_runs(scope, scorer.vocab_size)) as bar:
        bar(0, "in a fresh process")
        observed = observe([ScorerJob(scorer=subject, allowed=allow)], tokens, batch=scope.batch)[0]
        return audit(scorer, tokens, scope, artifact_digest=digest, observed=observed, progress=bar)


def _held_out(data: Path, offset: int, targets: int) -> "np.ndarray":
    from codec.storage.token_shards import find_shards, open_shard

    return open_shard(find_shards(data, "val")[0])[offset : offset + targets + 1]


def _gallery(out: Path | None, as_json: bool) -> int:
    from codec.storage.atomic_files import check_writable, write_bytes
    from verify.audit.checks import short_names
    from verify.audit.gallery import SCOPE, audit_all
    from verify.audit.gallery.exhibits import EXHIBITS
    from verify.audit.gallery.page import markdown, row, wrong

    if out:
        check_writable(out)
    with progress("auditing", len(EXHIBITS)) as bar:
        found = audit_all(progress=bar)
        bar(len(EXHIBITS), "")
    mistakes = {name: wrong(EXHIBITS[name], one) for name, one in found.items()}
    if out:
        write_bytes(out, markdown(found, SCOPE).encode())
    if as_json:
        print_json(
            {
                "exhibits": [
                    {
                        **one.to_dict(),
                        "story": EXHIBITS[name].story,
                        "caught_by": EXHIBITS[name].caught_by,
                        "wrong": mistakes[name],
                    }
                    for name, one in found.items()
                ],
                "missed": [name for name, rules in mistakes.items() if rules and EXHIBITS[name].caught_by],
                "accused": [name for name, rules in mistakes.items() if rules and not EXHIBITS[name].caught_by],
            }
        )
    else:
        print_table([row(name, one) for name, one in found.items()], ("", *short_names().values()))
        click.echo("\n" + ", ".join(f"{number} {rule}" for rule, number in short_names().items()))
        for name, rules in mistakes.items():
            if rules:
                click.echo(f"WRONG: {name}: {', '.join(rules)}")
    return 1 if any(mistakes.values()) else 0


def _submissions(out: Path | None, as_json: bool) -> int:
    from codec.storage.atomic_files import check_writable, write_bytes
    from verify.submission_gallery import FOLDERS
    from verify.submission_gallery.exhibits import misjudged, verify_folders
    from verify.submission_gallery.page import HEAD, submission_row, submissions_page

    if out:
        check_writable(out)
    with progress("verifying", len(FOLDERS)) as bar:
        played = verify_folders(progress=bar)
        bar(len(FOLDERS), "")
    mistakes = {name: misjudged(FOLDERS[name], one) for name, one in played.items()}
    if out:
        write_bytes(out, submissions_page(played).encode())
    if as_json:
        rows = [
            {
                "name": name,
                "story": FOLDERS[name].story,
                "caught_by": FOLDERS[name].caught_by,
                "failed": one.failed,
                "refusal": one.refusal,
                "wrong": mistakes[name],
            }
            for name, one in played.items()
        ]
        missed = [name for name, rules in mistakes.items() if rules and FOLDERS[name].cheats]
        accused = [name for name, rules in mistakes.items() if rules and not FOLDERS[name].cheats]
        print_json({"submissions": rows, "missed": missed, "accused": accused})
    else:
        print_table([submission_row(name, one) for name, one in played.items()], HEAD)
        for name, rules in mistakes.items():
            if rules:
                click.echo(f"WRONG: {name}: {', '.join(rules)}")
    return 1 if any(mistakes.values()) else 0
