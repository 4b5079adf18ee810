"""From a script and the modules it needs to the one file that is shipped."""

from collections.abc import Mapping

from codec.progress import Progress, silent
from packager.script.bundle import Bundle
from packager.script.minify import minify
from packager.script.wrapper import NOTHING, Form, wrap


def packed_script(
    parts: Bundle,
    where: str,
    *,
    minified: bool = True,
    form: Form = "safe",
    shown: Mapping[str, str] = NOTHING,
    progress: Progress = silent,
) -> bytes:
    """Minify every module and wrap them together.  where: the script's file name, for messages; shown: as `wrap`.

    Names of the top level are shortened in a script without modules: no module can ask for them there.  Beside modules,
    which keep theirs, short ones also compress worse: 65 bytes in the reference script.

    progress: told how many of `steps` are done, and what is at work.

    Raises: InputError as `minify` and `wrap`.
    """
    texts = {where: parts.main, **parts.modules}
    short = {}
    for done, (name, text) in enumerate(texts.items()):
        progress(done, name)
        short[name] = minify(text, name, alone=not parts.modules) if minified else text
    progress(len(texts), "compress")
    packed = wrap(short.pop(where), short, form=form, shown=shown)
    progress(steps(parts), "")
    return packed


def steps(parts: Bundle) -> int:
    """Of packing: each source, and compressing them."""
    return len(parts.modules) + 2
