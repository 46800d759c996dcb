"""Jobs from a LiveKit server: its words are spoken here and nowhere else."""

from __future__ import annotations

from supervisor.dispatch.livekit.dispatcher import LiveKitDispatcher

__all__ = ["LiveKitDispatcher"]
