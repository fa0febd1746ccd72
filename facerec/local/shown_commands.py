"""The shell commands with which a person tries a local system out."""

import shlex
from pathlib import Path

from facerec.edge_messages import frames_topic
from facerec.local.system import LocalSystem


def function_call(system: LocalSystem, photo: Path) -> str:
    """A shell command that sends a photo to the detection function's URL; empty without functions."""
    if system.function_url is None:
        return ""
    region, user = (system.variables[name] for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"))
    secret = system.variables["AWS_SECRET_ACCESS_KEY"]
    signing = f"--aws-sigv4 aws:amz:{region}:lambda --user {user}:{secret} " if system.signs_function_calls else ""
    return (
        f"""printf '{{"request_id":"%s","filename":"%s","content":"%s"}}' "$(cat /proc/sys/kernel/random/uuid)" """
        f"""{photo.name} "$(base64 -w0 {photo})" | curl {signing}-H 'Content-Type: application/json' """
        f"--data-binary @- {system.function_url}"
    )


def device_rows(system: LocalSystem, logs: Path) -> dict[str, str]:
    """The folders of the device, and shell commands that send a frame to it and show answers; nothing without one."""
    device = system.device
    if device is None:
        return {}
    device_log = logs / "device.log"
    frame = (
        f"""printf '{{"request_id":"%s","filename":"%s","encoded":"%s"}}' "$(cat /proc/sys/kernel/random/uuid)" """
        """photo.jpg "$(base64 -w0 photo.jpg)" | aws iot-data publish """
        f"--topic {frames_topic(device.thing)} --payload fileb:///dev/stdin"
    )
    return {
        "frames": f"move pictures into {device.frames}",
        "answers": f"grep edge_result {shlex.quote(str(device_log))}",
        "device": f"{device.files} has its certificate; {device.thing} is its name",
        "MQTT": f"FACEREC_EDGE__SOURCE=topic at the start, then: {frame}",
    }
