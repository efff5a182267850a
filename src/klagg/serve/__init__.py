"""The read side: what klagg knows, in the forms that clients of the exchange already speak.

Everything here works on the protocols of `serve.source`; it knows no store, no engine and no exchange. `serve.server` runs the
application and the WebSocket streams in the caller's event loop.
"""
