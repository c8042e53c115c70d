"""What every page says to the browser about itself."""

COMMON = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_headers(nonce: str) -> dict[str, str]:
    """Headers of a page without scripts, whose styles carry the nonce.

    Forms are not held to an address: the answer to a login leads to the client's own (CSP 3, `form-action`, follows redirects).
    """
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none'"
    return {**COMMON, "Content-Security-Policy": policy}
