"""From a script and the modules it needs to the one file that is shipped."""

from collections.abc import Mapping

from packager.script.bundle import Bundle
from packager.script.minify import minify
from packager.script.wrapper import MAIN, NOTHING, Form, wrap


def packed_script(
    parts: Bundle, where: str, *, minified: bool = True, form: Form = "safe", shown: Mapping[str, str] = NOTHING
) -> bytes:
    """Minify every module and wrap them together.  where: the script's file name, for messages; shown: as `wrap`.

    Names of the script's top level are shortened only if no module can ask the script for them.

    Raises: InputError as `minify` and `wrap`.
    """
    if not minified:
        return wrap(parts.main, parts.modules, form=form, shown=shown)
    alone = not any(MAIN in text for text in parts.modules.values())
    return wrap(
        minify(parts.main, where, alone=alone),
        {name: minify(text, name) for name, text in parts.modules.items()},
        form=form,
        shown=shown,
    )
