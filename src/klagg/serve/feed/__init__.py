"""The feed: the event log of the database as one sequence, over WebSocket and server-sent events.

What is told is read from the log, so it is told after its commit, at least once, and can be asked for again from any number on.
One task reads what is new and hands it to all; who is behind reads pages of its own, and never holds up the others.
"""
