"""The simulation: the real service in a world on virtual time, made and broken by one seed (`python -m simulation --help`).

| module | is |
|---|---|
| `timeline` | virtual time: the event loop, the host's clock, how a process dies |
| `plan` | what a seed decides: the market, the settings, the faults and when they happen |
| `market` | what was traded, and the exchange's candles of it: the truth |
| `exchange` | the exchange's REST answers and streams over that market |
| `network` | sessions and sockets between the service and the exchange, with their faults |
| `disk` | the store off the loop, with its faults |
| `power` | what of a database is on the disk when the power fails |
| `world` | runs a plan: processes that start, crash and start again, until all is settled |
| `verdict` | compares what is in the database with the truth |
| `events` | compares what was published with the database |
| `shrink` | the shortest story of a failure |
"""
