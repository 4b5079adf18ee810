"""The table of the gallery's submissions: what `pgolf verify` says of each."""

import textwrap
from collections.abc import Mapping

from verify.audit.gallery.page import WIDTH
from verify.submission_gallery.exhibits import FOLDERS, FolderExhibit, Played, misjudged

HEAD = ("submission", "verify says", "by")


def submission_row(name: str, played: Played) -> tuple[str, ...]:
    """The cells of a folder: its name, what verify says, and by which rules."""
    if played.refusal:
        return (name, "refused", textwrap.shorten(played.refusal, 80, placeholder=" ..."))
    return (name, "fail" if played.failed else "pass", ", ".join(played.failed or played.warned))


def submissions_page(played: Mapping[str, Played]) -> str:
    """The page docs/gallery_submissions.md."""
    cheats = [FOLDERS[name] for name in played if FOLDERS[name].cheats]
    honest = [FOLDERS[name] for name in played if not FOLDERS[name].cheats]
    missed, accused = (sum(bool(misjudged(each, played[each.name])) for each in some) for some in (cheats, honest))
    return (
        "\n".join(
            [
                "# Gallery of submissions",
                "",
                "Small submissions that cheat, and honest ones, under `pgolf verify`. They are in",
                "`verify/submission_gallery`. `pgolf audit --gallery --submissions --out PAGE` wrote this.",
                "",
                f"{len(cheats)} cheats, {missed} missed; {len(honest)} honest, {accused} accused.",
                "",
                _line(HEAD),
                _line(["---"] * len(HEAD)),
                *(_line(submission_row(name, one)) for name, one in played.items()),
                "",
                *(_entry(each) for each in (*honest, *cheats)),
            ]
        )
        + "\n"
    )


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _entry(exhibit: FolderExhibit) -> str:
    must = f" Must be caught by {', '.join(exhibit.caught_by)}." if exhibit.caught_by else ""
    must = " Must be refused." if exhibit.refused else must
    return textwrap.fill(f"- **{exhibit.name}**: {exhibit.story}{must}", WIDTH, subsequent_indent="  ")
