"""The fixtures ``pool``, ``server`` and ``leaves_nothing``."""

pytest_plugins = ["supervisor.testing.plugin"]
