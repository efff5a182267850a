"""`klagg doctor`."""

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from klagg.cli.options import AsJson, CommonDb, Markets, RestUrl, WsUrl, load_settings

if TYPE_CHECKING:
    from klagg.config import Settings


def doctor(
    *,
    market: Markets = None,
    rest_url: RestUrl = None,
    ws_url: WsUrl = None,
    json_: AsJson = False,
    common: CommonDb | None = None,
) -> int:
    """Look for what stands in the way of a run: names, proxy, refusals, clock, weight, streams, database, disk, address.

    Exit code 1 if anything does.
    """
    settings = load_settings(common, usual_level="error", market=market, rest_url=rest_url, ws_url=ws_url)
    return asyncio.run(_examine(settings, as_json=json_))


async def _examine(settings: "Settings", *, as_json: bool) -> int:
    from klagg.service.doctor import Grade, examine

    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            print(f"{finding.grade.value:6}  {finding.what:16}  {finding.detail}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 1 if any(finding.grade is Grade.FAILED for finding in findings) else 0
