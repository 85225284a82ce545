"""A data set by population: `read_spec` a file of shares, `synthesize` images of it, the same whoever makes them."""

from mame_lib.synthesize.run import Summary, synthesize
from mame_lib.synthesize.spec import Spec, read_spec, spec_from

__all__ = ["Spec", "Summary", "read_spec", "spec_from", "synthesize"]
