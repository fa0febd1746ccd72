"""The pages of people of a large collection: the first one after a start, the next ones, and the one after a change.

    python -m benchmarks.people_pages
    python -m benchmarks.people_pages --people 5000 --photos 50000
    python -m benchmarks.people_pages --serve       # fills a local system, also with pictures, and lets it run

The real local system runs without a worker. The templates are put into the table directly, as if enrolled long ago.
Each figure is the time of a whole request over HTTP to the only web process. The last line is one JSON object:

- `frame_ms` is the first page for people, `/people`, after the start, whose list follows when it has been read;
- `first_ms` is the first page of 48 people, which reads the whole collection, and `first_cpu_ms` the web process's CPU
  time of it: the rest is the emulator, which scans the whole collection for each megabyte;
- `page_ms` and `page_max_ms` are the median and the longest of the following pages, `person_ms` and `photos_ms` the
  medians of one person and of the list of a person's photos;
- `html_ms` and `html_kb` are the median of the page for people, `/people`, and its size;
- `enrolled_ms` and `renamed_ms` are the next page after one enrolment and after a person of ten photos was renamed;
- `parallel_per_s` are pages per second of 8 clients at once, `threads_ms` is the slowest of 8 pages at once after 200
  further enrolments;
- `index_mb` is by how much the web process has grown, `wrong` counts pages that did not show the last change.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.jobs import Memory
from facerec import bootstrap
from facerec.aws.dynamodb.template_items import template_fields
from facerec.gallery.removal import photo_key, thumbnail_key
from facerec.message_base import ObjectRef
from facerec.ports import Template
from facerec.settings import Settings
from tests.support.local_system import LocalSystem
from tests.support.processes import cpu_seconds

_COLLECTION = "default"
_AT_ONCE = 25  # items of one BatchWriteItem
_CLIENTS = 8
_PAGE = 48
_ROUNDS = 20
_FIRST = ("Ada", "Alan", "Barbara", "Chen", "Émilie", "Grace", "Jürgen", "María", "Noor", "Søren", "Yuki", "Zoë")
_LAST = ("Ångström", "Borg", "Clarke", "Díaz", "Evans", "Hopper", "Lovelace", "Müller", "Noether", "Sato", "Turing")


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1_000)
    parser.add_argument("--photos", type=int, default=10_000, help="of all people together")
    parser.add_argument("--serve", action="store_true", help="add pictures, measure nothing, and run until Ctrl-C")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facerec-people-pages-") as folder:
        environ = {"FACEREC_WEB__AUTH": "open"}
        with LocalSystem(Path(folder) / "state", workers=0, environ=environ) as system:
            os.environ.update({k: v for k, v in system.environ.items() if k.startswith(("AWS_", "FACEREC_"))})
            settings = Settings.load()
            templates = list(made(settings, options.people, options.photos))
            fill(settings, templates)
            if options.serve:
                add_pictures(settings, templates)
                say(f"{system.url}people — Ctrl-C ends it")
                wait_for_interrupt()
                return
            figures = measure(settings, system, options.people, len(templates))
    print(json.dumps(figures, allow_nan=False))
    sys.exit(1 if figures["wrong"] else 0)


def made(settings: Settings, people: int, photos: int, first: int = 0) -> Iterator[Template]:
    """Yield templates with random embeddings, as many of each person; `first` numbers further ones."""
    random = np.random.default_rng(first)
    for number in range(first, first + photos):
        person = number % people
        name = f"{_FIRST[person % len(_FIRST)]} {_LAST[person // len(_FIRST) % len(_LAST)]} {person:04d}"
        identifier = random.bytes(16).hex()
        embedding = random.standard_normal(128, dtype=np.float32)
        file = f"photo {number}.jpg"
        yield Template(
            template_id=identifier,
            collection=_COLLECTION,
            identity=name,
            model_id="open-112-0123456789abcdef",
            embedding=embedding / np.linalg.norm(embedding),
            source=file,
            photo=ObjectRef(bucket=settings.gallery_bucket, key=photo_key(_COLLECTION, identifier, file), size=100_000),
            probability=0.99,
            quality=float(random.uniform(0.5, 1)),
            enrolled_at=datetime.now(UTC) - timedelta(minutes=number),
        )


def fill(settings: Settings, templates: Sequence[Template]) -> None:
    """Put the templates into the table, with their number and a version."""
    client = bootstrap.clients(settings).dynamodb
    table = settings.templates_table
    say(f"filling the table with {len(templates)} templates")

    def put(some: Sequence[Template]) -> None:
        items = [
            {"collection": {"S": _COLLECTION}, "item": {"S": f"template#{each.template_id}"}} | template_fields(each)
            for each in some
        ]
        client.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": item}} for item in items]})

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(put, [templates[i : i + _AT_ONCE] for i in range(0, len(templates), _AT_ONCE)]))
    for collection, item, name, value in (
        (_COLLECTION, "#version", "version", time.time_ns() // 1_000_000),
        ("#collections", _COLLECTION, "templates", len(templates)),
    ):
        key = {"collection": {"S": collection}, "item": {"S": item}}
        client.put_item(TableName=table, Item={**key, name: {"N": str(value)}})


def add_pictures(settings: Settings, templates: Sequence[Template]) -> None:
    """Store a drawn picture as the photo and the thumbnail of each template; it shows the person's number."""
    objects = bootstrap.object_store(settings)
    say("storing pictures")

    def put(template: Template) -> None:
        body = drawn(template.identity)
        if template.photo is not None:
            objects.put(template.photo.bucket, template.photo.key, body, "image/jpeg")
        key = thumbnail_key(template.collection, template.template_id)
        objects.put(settings.gallery_bucket, key, body, "image/jpeg")

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(put, templates))


def drawn(name: str) -> bytes:
    """A face of the name's own colours."""
    hue = hash(name) % 256
    picture = Image.new("HSV", (160, 160), (hue, 60, 230)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((40, 25, 120, 125), fill=(235, 200, 170))
    pen.ellipse((60, 60, 70, 70), fill=(40, 40, 60))
    pen.ellipse((90, 60, 100, 70), fill=(40, 40, 60))
    pen.text((62, 138), name[-4:], fill=(20, 20, 20))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def measure(settings: Settings, system: LocalSystem, people: int, photos: int) -> dict[str, Any]:
    """Ask for pages, and change something in between."""
    [web] = system.processes("facerec.cli web")
    memory, store = Memory(web), bootstrap.template_store(settings)
    further = made(settings, people, 10_000, first=photos)
    wrong = 0
    with httpx.Client(base_url=system.url, timeout=120, trust_env=False) as client:
        client.get("healthz")
        before = memory.now()
        frame = timed(lambda: client.get("people").raise_for_status())
        used = cpu_seconds(web)
        first = timed(lambda: page(client))
        used = cpu_seconds(web) - used
        reply = page(client)
        names = [each["name"] for each in reply["people"]]
        pages, cursor = [], reply["next"]
        for _ in range(_ROUNDS):
            pages.append(timed(partial(page, client, cursor)))
            cursor = page(client, cursor)["next"] or reply["next"]
        grown = memory.now() - before
        person = [timed(partial(get, client, f"api/v1/people/{name}")) for name in names[:_ROUNDS]]
        listed = [timed(partial(get, client, f"api/v1/people/{name}/photos")) for name in names[:_ROUNDS]]
        html = [timed(lambda: client.get("people").raise_for_status()) for _ in range(_ROUNDS)]
        new = next(each for each in further if each.identity == names[0])
        count = reply["people"][0]["photos"]
        store.add(new)
        enrolled = timed(lambda: page(client))
        wrong += page(client)["people"][0]["photos"] != count + 1
        client.patch(f"api/v1/people/{names[1]}", json={"name": "Aaron Aardvark"}).raise_for_status()
        renamed = timed(lambda: page(client))
        wrong += page(client)["people"][0]["name"] != "Aaron Aardvark"
        parallel = in_parallel(system.url, lambda one: [page(one) for _ in range(_ROUNDS)])
        for template in (next(further) for _ in range(200)):
            store.add(template)
        stampede = in_parallel(system.url, page)
        size = len(client.get("people").content)
    return {
        "people": people,
        "photos": photos,
        "frame_ms": round(frame),
        "first_ms": round(first),
        "first_cpu_ms": round(used * 1000),
        "page_ms": round(statistics.median(pages), 1),
        "page_max_ms": round(max(pages), 1),
        "person_ms": round(statistics.median(person), 1),
        "photos_ms": round(statistics.median(listed), 1),
        "html_ms": round(statistics.median(html), 1),
        "html_kb": round(size / 1000, 1),
        "enrolled_ms": round(enrolled, 1),
        "renamed_ms": round(renamed, 1),
        "parallel_per_s": round(_CLIENTS * _ROUNDS / (max(parallel) / 1000), 1),
        "threads_ms": round(max(stampede)),
        "index_mb": round(grown, 1),
        "load": round(os.getloadavg()[0], 1),
        "wrong": wrong,
    }


def page(client: httpx.Client, cursor: str | None = None) -> Any:
    """A page of people."""
    return get(client, "api/v1/people", limit=_PAGE, **({"cursor": cursor} if cursor else {}))


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    """The JSON of an answer."""
    return client.get(path, params=query).raise_for_status().json()


def timed(call: Callable[[], object]) -> float:
    """How many milliseconds a call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def in_parallel(url: str, work: Callable[[httpx.Client], object]) -> list[float]:
    """Do it in 8 clients at once; returns the milliseconds of each."""
    barrier = threading.Barrier(_CLIENTS)

    def run(_: int) -> float:
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            client.get("healthz")
            barrier.wait(60)
            return timed(lambda: work(client))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return list(pool.map(run, range(_CLIENTS)))


def wait_for_interrupt() -> None:
    """Return when the process gets Ctrl-C."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("stopping")


def say(line: str) -> None:
    """Print the progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
