"""From a script and the modules it needs to the one file that is shipped."""

from collections.abc import Mapping

from packager.script.bundle import Bundle
from packager.script.minify import minify
from packager.script.wrapper import NOTHING, Form, wrap


def packed_script(
    parts: Bundle, where: str, *, minified: bool = True, form: Form = "safe", shown: Mapping[str, str] = NOTHING
) -> bytes:
    """Minify every module and wrap them together.  where: the script's file name, for messages; shown: as `wrap`.

    Names of the top level are shortened in a script without modules: no module can ask for them there.  Beside modules,
    which keep theirs, short ones also compress worse: 65 bytes in the reference script.

    Raises: InputError as `minify` and `wrap`.
    """
    if not minified:
        return wrap(parts.main, parts.modules, form=form, shown=shown)
    return wrap(
        minify(parts.main, where, alone=not parts.modules),
        {name: minify(text, name) for name, text in parts.modules.items()},
        form=form,
        shown=shown,
    )
