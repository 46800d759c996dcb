"""The fixtures of the integration tests: nothing may be left here either."""

from tests.integration.conftest import _subreaper, leaves_nothing

__all__ = ["_subreaper", "leaves_nothing"]
