"""Checkpoint + recipe + script -> a submission folder that stays under a byte cap.

    import packager
    options = packager.PackOptions(checkpoint=Path("checkpoint.safetensors"), recipe="pr162")
    submission = packager.build_submission(options, Path("submission"))

The script carries the modules it imports.  Its form is one ASCII file, which can be read back without running it:

    >>> import packager
    >>> script = packager.wrap("from mine.tools import x\\nprint(x)\\n", {"mine.tools": "x = 1\\n"})
    >>> script[:15]
    b'# pgolf-pack 2 '
    >>> packager.unwrap(script)
    {'mine.tools': 'x = 1\\n', '__main__': 'from mine.tools import x\\nprint(x)\\n'}
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy

if TYPE_CHECKING:
    from packager.importers.imported import Imported
    from packager.importers.read_any import read_any
    from packager.own_artifact import OwnArtifactOptions, OwnSubmission, build_own_submission, plan_own_submission
    from packager.script.bundle import Bundle, bundle
    from packager.script.minify import minify
    from packager.script.packed_script import packed_script
    from packager.script.wrapper import unwrap, wrap
    from packager.submission import PackedSubmission, PackOptions, build_submission, plan_submission
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "packager.importers.imported": ("Imported",),
            "packager.importers.read_any": ("read_any",),
            "packager.own_artifact": (
                "OwnArtifactOptions",
                "OwnSubmission",
                "build_own_submission",
                "plan_own_submission",
            ),
            "packager.script.bundle": ("Bundle", "bundle"),
            "packager.script.minify": ("minify",),
            "packager.script.packed_script": ("packed_script",),
            "packager.script.wrapper": ("unwrap", "wrap"),
            "packager.submission": ("PackOptions", "PackedSubmission", "build_submission", "plan_submission"),
        },
    )

__all__ = [
    "Bundle",
    "Imported",
    "OwnArtifactOptions",
    "OwnSubmission",
    "PackOptions",
    "PackedSubmission",
    "build_own_submission",
    "build_submission",
    "bundle",
    "minify",
    "packed_script",
    "plan_own_submission",
    "plan_submission",
    "read_any",
    "unwrap",
    "wrap",
]
