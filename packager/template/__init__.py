"""The script of every submission that brings none of its own, and the modules of the toolkit that it carries.

Each byte of these modules counts against the cap, minified and compressed.  A change to one of them is a change to
every submission, so they import only the standard library, numpy, torch, sentencepiece and each other.
"""

SHIPPED = (  # every module after the ones it imports, as they lie in the packed script
    "codec.errors",
    "codec.decoder",
    "codec.storage.token_shards",
    "trainer.model.config",
    "trainer.model.gpt",
    "verify.scoring.ranks",
    "verify.scoring.scorer",
    "verify.scoring.score",
    "verify.scoring.windows",
    "verify.scoring.token_stream",
    "verify.scoring.sliding",
    "verify.scoring.token_bytes",
)
