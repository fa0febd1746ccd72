"""What every response tells browsers and caches; no other origin may use it (there is no CORS)."""

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of our pages, which load nothing."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`, with which browsers hide the origin of our own page's form, too.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

TRANSPORT_SECURITY = "max-age=31536000"
"""For responses over HTTPS; it says nothing of other names in the same domain, which are not ours to speak for."""
