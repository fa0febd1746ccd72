"""A page of metrics as Prometheus reads it."""

import ssl

import httpx
from prometheus_client.parser import text_string_to_metric_families

_TLS = ssl.create_default_context()
"""Making one takes longer than asking; it is not used, since the pages are plain HTTP."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    """Every sample of a page."""
    families = text_string_to_metric_families(httpx.get(url, verify=_TLS, timeout=30).raise_for_status().text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with these labels, among others."""
    return sum(number for (one, its), number in samples.items() if one == name and labels.items() <= dict(its).items())
