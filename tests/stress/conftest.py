"""The fixtures of the integration tests: nothing may be left here either."""

from tests.integration.conftest import _leaves_nothing, greenroom_subreaper, leaves_nothing

__all__ = ["_leaves_nothing", "greenroom_subreaper", "leaves_nothing"]
