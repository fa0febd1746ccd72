"""Replaces libraries of OpenCV that the engine never calls by empty ones: FFmpeg and OpenBLAS are 70 MB of the wheel.

`cv2` is one extension for everything, linked with the libraries of its video and linear algebra functions, so it does
not load without them. Each is replaced by a library of the same name, whose functions end the process. An engine child
would be replaced then, and the picture would go to the dead-letter queue. The engine decodes JPEGs, resizes, turns,
warps and blurs; none of that calls them, and every result stays bitwise the same. It needs `readelf` and a C compiler.
"""

import re
import shlex
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

NEVER_CALLED = ("libavcodec-", "libavformat-", "libavutil-", "libopenblas", "libswscale-")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_UNDEFINED = "UND"


def hollow(packages: Path, libraries: str, compiler: str) -> list[str]:
    """Hollow `NEVER_CALLED` in the folder `libraries`, drop what then nothing needs there; return the names of both.

    `compiler` is the command of a C compiler for the processor of the packages. Raises `SystemExit` if a library is
    missing: the wheel has changed.
    """
    folder = packages / libraries
    changed = []
    for prefix in NEVER_CALLED:
        found = sorted(folder.glob(f"{prefix}*"))
        if len(found) != 1:
            raise SystemExit(f"{folder} has {len(found)} libraries {prefix}*: adapt {Path(__file__).name}")
        changed += found
    users = [path for path in packages.rglob("*.so*") if path.is_file() and path not in changed]
    for library in changed:
        wanted = {symbol for user in users if library.name in needed(user) for symbol in symbols(user, defined=False)}
        _write_empty(library, sorted(wanted & set(symbols(library, defined=True))), compiler)
    return [path.name for path in changed + drop_unneeded(packages, folder)]


def drop_unneeded(packages: Path, folder: Path) -> list[Path]:
    """Remove the libraries of a folder that no binary of the packages needs; returns them."""
    dropped: list[Path] = []
    while True:
        binaries = [path for path in packages.rglob("*.so*") if path.is_file()]
        used = {name for binary in binaries for name in needed(binary)}
        unused = [path for path in sorted(folder.iterdir()) if path.name not in used]
        if not unused:
            return dropped
        for path in unused:
            path.unlink()
        dropped += unused


def needed(binary: Path) -> list[str]:
    """Return the names of the libraries that a binary is linked with."""
    return _NEEDED.findall(_readelf("-d", binary))


def symbols(binary: Path, *, defined: bool) -> list[str]:
    """Return the dynamic symbols that a binary defines, or those that it takes from others, as `name@version`."""
    found = []
    for line in _readelf("--dyn-syms", binary).splitlines():
        fields = line.split()  # number, value, size, type, bind, visibility, section, name
        if len(fields) > 7 and fields[0].rstrip(":").isdigit() and (fields[6] != _UNDEFINED) == defined:  # noqa: PLR2004
            found.append(fields[7].replace("@@", "@"))
    return found


def _write_empty(library: Path, names: list[str], compiler: str) -> None:
    """Write a library of these functions in the place of `library`; each ends the process."""
    by_version: dict[str, list[str]] = defaultdict(list)
    for name in names:
        function, _, version = name.partition("@")
        by_version[version].append(function)
    functions = [function for some in by_version.values() for function in some]
    versions = [
        f"{version} {{ global: {'; '.join(some)}; local: *; }};" for version, some in by_version.items() if version
    ]
    with tempfile.TemporaryDirectory(prefix="facerec-hollow-") as folder:
        source, script = Path(folder) / "empty.c", Path(folder) / "versions"
        source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in functions))
        script.write_text("\n".join(versions))
        command = [*shlex.split(compiler), "-shared", "-fPIC", "-nostdlib", "-Os", "-w", "-fno-builtin", "-s"]
        command += ["-Wl,--build-id=none", f"-Wl,-soname,{library.name}"]
        command += [f"-Wl,--version-script={script}"] if versions else []
        _run([*command, "-o", str(library), str(source)])


def _readelf(option: str, binary: Path) -> str:
    return _run(["readelf", "-W", option, str(binary)])


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as exc:
        raise SystemExit(f"{command[0]} is missing: install binutils and a C compiler, or name one in CC") from exc
    except subprocess.CalledProcessError as exc:
        raise SystemExit(f"{shlex.join(command)}: {exc.stderr.strip()}") from exc
