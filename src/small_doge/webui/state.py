"""What the routes of a server share."""

from dataclasses import dataclass

from .control import ControlPlane
from .generation import Generator
from .metrics import Metrics
from .registry import ModelRegistry
from .settings import ServeSettings


@dataclass
class ServerState:
    """What the routes of a server share.

    Attributes:
        settings: limits and defaults.
        registry: the models.
        metrics: what is counted.
        generator: starts generations.
        control: does what concerns all replicas of the server.
    """

    settings: ServeSettings
    registry: ModelRegistry
    metrics: Metrics
    generator: Generator
    control: ControlPlane
