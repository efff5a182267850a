"""The tree of commands."""

from cyclopts import App, Group

from klagg import __version__
from klagg.cli import config as config_commands
from klagg.cli.audit import audit
from klagg.cli.backfill import backfill
from klagg.cli.bench import bench
from klagg.cli.check import check
from klagg.cli.connect import connect
from klagg.cli.demo import demo
from klagg.cli.doctor import doctor
from klagg.cli.exchange import exchange
from klagg.cli.export import export
from klagg.cli.replay import replay
from klagg.cli.run import run
from klagg.cli.serve import serve
from klagg.cli.status import status
from klagg.cli.tail import tail

SERVICE = Group("Service", sort_key=1)
DATA = Group("Data", sort_key=2)
TOOLS = Group("Tools", sort_key=3)

app = App(
    name="klagg",
    version=f"klagg {__version__}",
    help="Candles from Binance spot and USDT-M futures that are complete, true, durable and on time.",
    help_format="plaintext",
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # `main` turns it into the exit code
)
app["--help"].group = app["--version"].group = TOOLS

app.command(run, group=SERVICE)
app.command(serve, group=SERVICE)
app.command(demo, group=SERVICE)
app.command(exchange, group=SERVICE)
app.command(replay, group=DATA)
app.command(backfill, group=DATA)
app.command(export, group=DATA)
app.command(audit, group=DATA)
app.command(check, group=DATA)
app.command(status, group=DATA)
app.command(tail, group=DATA)

config = App(name="config", help="The settings: write a file, show what holds and why, print the schema.", group=TOOLS)
config.command(config_commands.init)
config.command(config_commands.show)
config.command(config_commands.schema)
app.command(config)
app.command(doctor, group=TOOLS)
app.command(connect, group=TOOLS)
app.command(bench, group=TOOLS)
app.register_install_completion_command(name="install-completion", group=TOOLS, add_to_startup=False)
