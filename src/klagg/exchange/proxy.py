"""The proxy that the environment names for an address, for WebSockets (the REST client asks by itself)."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """The proxy for a `ws://` or `wss://` URL: `HTTP_PROXY` or `HTTPS_PROXY`, else `ALL_PROXY`, unless `NO_PROXY` applies.

    `WS_PROXY` and `WSS_PROXY` go before them. A `socks5h` proxy is named `socks5` (it resolves names in either case).
    """
    parts = urlsplit(url)
    proxies = getproxies()
    secure = parts.scheme == "wss"
    names = ("wss", "https", "all") if secure else ("ws", "http", "all")
    proxy = next((proxies[name] for name in names if proxies.get(name)), None)
    if proxy is None or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        return f"http://{proxy}"
    return proxy.replace("socks5h://", "socks5://", 1)
