"""Opens the link and the source that the settings name; each imports its libraries only if it is used."""

import shlex
import stat

from facerec.edge.counters import Counters
from facerec.edge.frame import FrameLimits, FrameSource
from facerec.edge.link import Link
from facerec.edge.sources.folder import FolderSource
from facerec.edge.sources.topic import TopicSource
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings


def link_of(edge: EdgeSettings, thing: str, client_id: str) -> Link:
    """The link that the settings name; AWS's clients are imported here."""
    if edge.link == "ipc":
        from facerec.edge.ipc_link import IpcLink

        return IpcLink(edge, thing)
    from facerec.edge.mqtt_link import MqttLink

    return MqttLink(edge, thing, client_id)


def source_of(settings: Settings, thing: str, link: Link, counters: Counters) -> FrameSource:
    """The source that the settings name."""
    edge, limits = settings.edge, FrameLimits(max_megapixels=settings.max_megapixels)
    if edge.source == "folder":
        return FolderSource(edge.folder, thing, counters, limits)
    if edge.source == "topic":
        return TopicSource(link, thing, counters, limits)
    from facerec.edge.sources.camera import CameraSource  # OpenCV takes 20 MB

    return CameraSource(edge.camera, edge.max_frames_per_second, counters)


def check_key(edge: EdgeSettings) -> None:
    """Refuse a private key that others may read."""
    if edge.link != "mqtt" or edge.key_file is None:
        return
    try:
        mode = edge.key_file.stat().st_mode
    except OSError as exc:
        raise ConfigurationError(f"{edge.key_file} cannot be read ({exc.strerror})") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"others may read the private key {edge.key_file}: run `chmod 600 {shlex.quote(str(edge.key_file))}`"
        )
