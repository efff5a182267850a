"""The deliberate defects: data, one list for `make mutants`, for `make test` (a few of them) and for docs/GUARANTEES.md.

A check is a test (a pytest node id), or `seed N` of the simulation (`seed N plain`: an ordinary world without lies of REST). Of
several one must catch it. A new defect gets a check that a user's loss would be seen by.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong in words, the file below `src/klagg`, the text that stands there once, what it becomes, and what catches it."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]


EDGES = "tests/engine/test_edges.py::test_"
TWINS = "tests/engine/test_properties.py::test_"
RULES = "tests/test_rules.py::test_"
CLOCK = "tests/test_clock.py::test_"
KLINES = "tests/serve/test_ranges.py::test_"
NATIVE = "tests/serve_native/test_ranges.py::test_"
GUARD = "tests/store/test_guard.py::test_"
STORED = "tests/store/test_ranges.py::test_"
PUSHES = "tests/service/test_comparison.py::test_"
OUTBOX = "tests/service/test_outbox.py::test_"

ENGINE = (
    Defect(
        "a duplicate at the edge of the window of ids counts twice",
        "engine/evidence.py",
        "elif agg_id < next_id or agg_id - next_id >= WINDOW:",
        "elif agg_id < next_id or agg_id - next_id > WINDOW:",
        (EDGES + "a_duplicate_at_the_edge_of_the_window_counts_once",),
    ),
    Defect(
        "ids seen before a jump are remembered after it",
        "engine/evidence.py",
        "        forget_ahead(ints, slot)\n        restart_chain(",
        "        restart_chain(",
        (EDGES + "ids_beyond_the_window_are_forgotten_with_the_hole_they_jump_over",),
    ),
    Defect(
        "a chain of ids proves the minute at whose open it begins",
        "engine/evidence.py",
        "if ints[s.CHAIN, slot] < minute_ms:",
        "if ints[s.CHAIN, slot] <= minute_ms:",
        (EDGES + "ids_that_begin_at_a_minutes_open_do_not_prove_it",),
    ),
    Defect(
        "a minute is proven although a trade came too late for it",
        "engine/evidence.py",
        " or is_settled(row) or (ints[s.LACKING, slot] >> column) & 1:",
        " or is_settled(row):",
        (EDGES + "a_trade_too_late_for_any_candle_leaves_its_minute_unproven",),
    ),
    Defect(
        "a hole leaves the proof to the minute of its far edge",
        "engine/evidence.py",
        "while minute_ms <= upto_ms and minute_ms < ints[s.MINUTE, slot]:",
        "while minute_ms < upto_ms - MINUTE_MS and minute_ms < ints[s.MINUTE, slot]:",
        (EDGES + "a_hole_takes_the_proof_from_every_minute_up_to_its_far_edge",),
    ),
    Defect(
        "a hole is given up a moment late",
        "engine/evidence.py",
        ">= s.HOLE_PATIENCE_MS:",
        "> s.HOLE_PATIENCE_MS:",
        (EDGES + "a_hole_is_given_up_after_its_patience_and_not_before",),
    ),
    Defect(
        "a new numbering of ids is taken for duplicates",
        "engine/evidence.py",
        "+ s.RENUMBERING_MS\n",
        "+ s.FAR\n",
        (EDGES + "a_lower_id_is_a_duplicate_until_it_is_dated_well_after_the_last",),
    ),
    Defect(
        "a blind feed takes the proof from minutes that ids prove",
        "engine/evidence.py",
        "and not is_settled(row) and not proven:",
        "and not is_settled(row):",
        (EDGES + "a_feed_that_was_blind_leaves_no_flat_minute_but_one_that_ids_prove",),
    ),
    Defect(
        "a trade at the end of a minute is that minute's",
        "engine/applying.py",
        "and 0 <= time_ms - minute_ms < MINUTE_MS",
        "and 0 <= time_ms - minute_ms <= MINUTE_MS",
        (EDGES + "a_trade_at_the_very_end_of_a_minute_is_the_next_minutes",),
    ),
    Defect(
        "a late trade is taken a minute less far back",
        "engine/applying.py",
        "old = minute_ms < current_ms - s.HELD_MINUTES * MINUTE_MS",
        "old = minute_ms <= current_ms - s.HELD_MINUTES * MINUTE_MS",
        (EDGES + "a_trade_this_many_minutes_late_is_still_or_no_longer_taken",),
    ),
    Defect(
        "a trade from further in the future is taken",
        "engine/applying.py",
        "or time_ms > latest_ms or",
        "or time_ms > latest_ms + 1 or",
        (EDGES + "a_trade_from_the_future_is_taken_so_far",),
    ),
    Defect(
        "the open of a minute goes by arrival",
        "engine/applying.py",
        'ints[first, slot] = agg_id\n            row["open"] = price',
        "ints[first, slot] = agg_id",
        (EDGES + "open_and_close_go_by_id_however_trades_arrive",),
    ),
    Defect(
        "the close of a minute goes by arrival",
        "engine/applying.py",
        "if agg_id > ints[last, slot]:",
        "if agg_id != ints[last, slot]:",
        (EDGES + "open_and_close_go_by_id_however_trades_arrive",),
    ),
    Defect(
        "who was the maker is turned round in the common case",
        "engine/applying.py",
        '\n    row["close"] = price\n    add_ids(row, trade["first_id"], trade["last_id"])\n'
        '    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)',
        '\n    row["close"] = price\n    add_ids(row, trade["first_id"], trade["last_id"])\n'
        '    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] != 0)',
        (TWINS + "sums_are_exact_where_they_need_two_words",),
    ),
    Defect(
        "a changed close does not run on through the minutes without trades after it",
        "engine/applying.py",
        "        set_origin(rows, ints, slot, column, PARTIAL)\n    run_on(rows, ints, slot, minute_ms)",
        "        set_origin(rows, ints, slot, column, PARTIAL)",
        (EDGES + "a_late_trade_moves_what_follows_it_without_trades_but_nothing_of_the_exchanges",),
    ),
    Defect(
        "a full word of a volume does not carry",
        "engine/candle.py",
        '    row["volume_lo"] += qty\n    if row["volume_lo"] >= WORD:',
        '    row["volume_lo"] += qty\n    if row["volume_lo"] > WORD:',
        (EDGES + "sums_that_fill_a_word_exactly_carry_on",),
    ),
    Defect(
        "a full word of a folded quote volume does not carry",
        "engine/candle.py",
        '    if parent["quote_lo"] >= WORD:',
        '    if parent["quote_lo"] > WORD:',
        (EDGES + "sums_of_two_minutes_that_fill_a_word_exactly_carry_on",),
    ),
    Defect(
        "the number of trades is that of the messages",
        "engine/candle.py",
        'row["trades"] += last_id - first_id + 1',
        'row["trades"] += 1',
        (TWINS + "whatever_happens_every_closed_candle_comes_out_with_the_right_numbers",),
    ),
    Defect(
        "a flat piece makes its parent partial",
        "engine/candle.py",
        "return TRADES if lowest >= FLAT else PARTIAL",
        "return TRADES if lowest > FLAT else PARTIAL",
        (RULES + "the_kernels_fold_as_the_rules_say",),
    ),
    Defect(
        "candles are equal whatever takers bought",
        "engine/candle.py",
        '\n        and a["taker_quote_lo"] == b["taker_quote_lo"]',
        "",
        (EDGES + "a_minute_equals_the_exchanges_only_in_every_number",),
    ),
    Defect(
        "a fold is verified although a piece is not",
        "engine/fold.py",
        'parent["flags"] &= child["flags"] | CLOSED',
        'parent["flags"] |= child["flags"] & VERIFIED',
        (RULES + "folding_gives_the_origin_and_the_verification_of_the_rules",),
    ),
    Defect(
        "a fold with a piece missing is whole",
        "engine/fold.py",
        'if child["open_ms"] == upto[count - 1]:',
        'if child["open_ms"] >= upto[count - 1]:',
        ("tests/test_refold.py::test_a_parent_with_a_missing_child_is_left_alone",),
    ),
    Defect(
        "minutes folded anew are counted twice in the open candle",
        "engine/matching.py",
        "        if minute_ms >= upto_ms:\n            fold_into(row, child)",
        "        fold_into(row, child)",
        ("tests/engine/test_matching.py::test_repaired_minutes_make_every_candle_the_exchanges_own",),
    ),
    Defect(
        "a running minute's snapshot holds its trades",
        "engine/closing.py",
        'if rows[column, slot]["trades"] > 0:\n            first = rows[before, slot]',
        'if rows[column, slot]["trades"] < 0:\n            first = rows[before, slot]',
        (EDGES + "a_snapshot_of_a_running_minute_holds_none_of_its_trades",),
    ),
    Defect(
        "a last trade without a price",
        "engine/engine.py",
        'last["price"] = ints[s.FRONTIER_PRICE]',
        'last["price"] = ints[s.FRONTIER_PRICE] * (np.arange(len(slots)) >= len(slots) // 2)',
        ("seed 5 plain",),
    ),
    Defect(
        "weeks begin on Thursday",
        "interval.py",
        'Interval("1w", 13, 7 * DAY_MS, anchor_ms=4 * DAY_MS)',
        'Interval("1w", 13, 7 * DAY_MS)',
        ("tests/test_interval.py::test_known_candles",),
    ),
)

RULES_AND_STORE = (
    Defect(
        "what is verified gives way to what is not",
        "store/guard.py",
        "WHEN candle.verified THEN 0",
        "WHEN candle.verified THEN excluded.origin > candle.origin",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "a lower rank replaces a higher one",
        "store/guard.py",
        "    WHEN excluded.origin > candle.origin THEN 1\n",
        "    WHEN excluded.origin <> candle.origin THEN 1\n",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "of two that lack trades a stranger's may lack more",
        "store/guard.py",
        " OR excluded.trades >= candle.trades",
        " OR excluded.trades <> candle.trades",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "a revision is not counted",
        "store/guard.py",
        "        return revision + differs",
        "        return revision",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "a comparison takes the ids away that the trades told",
        "store/guard.py",
        "first_id = CASE WHEN excluded.first_id < 0 AND {same} THEN candle.first_id ELSE excluded.first_id END",
        "first_id = excluded.first_id",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "an instant's knowledge holds what became known after it",
        "store/candles.py",
        "open_ms < ?3 AND known_ms <= ?4",
        "open_ms < ?3 AND known_ms <= ?4 + 1000",
        ("tests/store/test_as_of.py::test_any_instant_is_as_the_twin_remembers_it",),
    ),
    Defect(
        "a range of stored candles holds its end",
        "store/candles.py",
        'f"SELECT {READ_COLUMNS} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? "',
        'f"SELECT {READ_COLUMNS} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms <= ? "',
        (STORED + "a_range_of_candles_holds_its_start_and_not_its_end",),
    ),
    Defect(
        "a range of stored candles lacks its start",
        "store/candles.py",
        'f"SELECT {READ_COLUMNS} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? "',
        'f"SELECT {READ_COLUMNS} FROM candle WHERE series = ? AND open_ms > ? AND open_ms < ? "',
        (STORED + "a_range_of_candles_holds_its_start_and_not_its_end",),
    ),
    Defect(
        "backfill writes minutes that their owner has not closed",
        "store/candles.py",
        "return np.flatnonzero(end_ms(candles) <= bound)",
        'return np.flatnonzero(candles["open_ms"] <= bound)',
        (STORED + "a_stranger_writes_only_what_has_closed",),
    ),
    Defect(
        "an older snapshot replaces a newer one",
        "store/candles.py",
        "WHERE excluded.open_ms >= open_candle.open_ms",
        "WHERE 1",
        (GUARD + "an_older_open_snapshot_does_not_replace_a_newer",),
    ),
    Defect(
        "the same of two events comes to who asks after it",
        "store/events.py",
        "[max(after_seq + 1 - seq, 0) :][:limit]",
        "[max(after_seq - seq, 0) :][:limit]",
        (NATIVE + "events_after_a_number",),
    ),
    Defect(
        "changes are not published",
        "store/events.py",
        "    happened = what != 0\n",
        "    happened = what < 0\n",
        ("seed 0 plain",),
    ),
    Defect(
        "a barrier passes while a candle is still open at it",
        "store/barrier.py",
        "if unsettled and not is_late:",
        "if unsettled > 1 and not is_late:",
        ("tests/store/test_events.py::test_a_barrier_is_verified_when_the_last_candle_is_settled",),
    ),
    Defect(
        "an owner that was taken over writes on",
        "store/claims.py",
        "    if moved != len(shards):\n        raise _lost(database, held)",
        "    if moved > len(shards):\n        raise _lost(database, held)",
        ("tests/store/test_claims.py::test_a_lease_that_ended_gives_way_and_the_old_owner_is_fenced",),
    ),
    Defect(
        "transactions are not",
        "store/database.py",
        '        self.execute("BEGIN IMMEDIATE")\n        try:\n            yield\n            self.execute("COMMIT")',
        "        try:\n            yield",
        ("seed 86 plain",),
    ),
    Defect(
        "everything stored is called verified",
        "store/rows.py",
        'mask: Mask = (candles["flags"] & Flag.VERIFIED.value) != 0',
        'mask: Mask = candles["flags"] >= 0',
        ("seed 1 plain",),
    ),
    Defect(
        "an empty minute on evidence is trades",
        "rules.py",
        "return Origin.TRADES if coverage.traded else Origin.FLAT",
        "return Origin.TRADES",
        (RULES + "the_engine_judges_a_minute_by_its_coverage",),
    ),
    Defect(
        "a doubted minute without trades is flat",
        "rules.py",
        "    if coverage.doubted:\n        return Origin.FILLED\n",
        "",
        (RULES + "the_engine_judges_a_minute_by_its_coverage",),
    ),
)

SERVICE = (
    Defect(
        "ticks come before their time",
        "clock.py",
        "return (min(now_ns, self._last_host_ns + self._target_ns) - self._calibration_error_ns()) // NS_PER_MS",
        "return (min(now_ns, self._last_host_ns + self._target_ns) - self._calibration_error_ns()) // NS_PER_MS + 600",
        ("seed 0 plain",),
    ),
    Defect(
        "the uncertainty of the clock is forgotten",
        "clock.py",
        "return (min(now_ns, self._last_host_ns + self._target_ns) - self._calibration_error_ns()) // NS_PER_MS",
        "return now_ns // NS_PER_MS",
        ("seed 147 plain",),
    ),
    Defect(
        "the clock runs back",
        "clock.py",
        "now_ns = max(estimate_ns, self._last_now_ns)",
        "now_ns = estimate_ns",
        (CLOCK + "the_time_never_runs_backwards",),
    ),
    Defect(
        "a boundary that was slept through is left out",
        "clock.py",
        "        self.last_tick_ms = boundary_ms\n        return boundary_ms",
        "        self.last_tick_ms = max(boundary_ms, MINUTE.open_at(self._exchange_clock.earliest_ms()))\n        return boundary_ms",
        (CLOCK + "boundaries_slept_through_come_all_and_in_order",),
    ),
    Defect(
        "a failed write is taken for done",
        "service/outbox.py",
        "self._pending.insert(0, self._in_flight)\n        self._in_flight = EMPTY",
        "self._in_flight = EMPTY",
        (OUTBOX + "a_failed_batch_is_still_there",),
    ),
    Defect(
        "a failed write goes out over what came meanwhile",
        "service/outbox.py",
        "self._pending.insert(0, self._in_flight)",
        "self._pending.append(self._in_flight)",
        (OUTBOX + "a_failed_batch_waits_again_behind_nothing_newer",),
    ),
    Defect(
        "some candles of a commit are left out",
        "service/outbox.py",
        "        self._in_flight = coalesce(self._pending)\n",
        "        whole = coalesce(self._pending)\n        kept = np.arange(len(whole.candles)) % 17 != 16\n"
        "        self._in_flight = Batch(whole.instrument_ids[kept], whole.candles[kept])\n",
        ("seed 70 plain", "seed 9 plain", "seed 65 plain"),
    ),
    Defect(
        "what is given up goes by its open, not by its end",
        "service/outbox.py",
        "ends_ms = end_ms(batch.candles)",
        'ends_ms = batch.candles["open_ms"] + MINUTE_MS',
        (OUTBOX + "a_longer_candle_is_given_up_with_the_minute_it_closed_with_and_on_record",),
    ),
    Defect(
        "what is given up is not asked for",
        "service/market.py",
        "            self.repairer.fetch(gap.symbol, gap.start_ms, gap.end_ms)",
        "            del gap",
        ("seed 1712 plain",),
    ),
    Defect(
        "a push that trades do not confirm verifies its minute",
        "service/comparison.py",
        'replaced["flags"] &= ~np.uint8(Flag.VERIFIED)',
        'replaced["flags"] |= np.uint8(Flag.VERIFIED)',
        (PUSHES + "a_push_that_trades_do_not_confirm_verifies_nothing_and_the_exchange_is_asked",),
    ),
    Defect(
        "a push of other numbers replaces what stands on evidence",
        "service/comparison.py",
        "replaced = self._waiting[overdue & ~evident]",
        "replaced = self._waiting[overdue]",
        (PUSHES + "a_push_that_trades_do_not_confirm_verifies_nothing_and_the_exchange_is_asked",),
    ),
    Defect(
        "a push is judged before the trades that it holds may have come",
        "service/comparison.py",
        "(now_ms - self._since_ms >= GRACE_MS)",
        "(now_ms - self._since_ms >= GRACE_MS - 1)",
        (PUSHES + "a_difference_may_be_a_trade_on_its_way",),
    ),
    Defect(
        "a file of the archive replaces the API's word",
        "store/guard.py",
        "OR (excluded.source, excluded.origin) >= (candle.source, candle.origin)",
        "OR excluded.origin >= candle.origin",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "of two files of the archive that differ the newer is verified",
        "store/guard.py",
        'is_verified = f"(excluded.verified AND NOT {disputes})"',
        'is_verified = "excluded.verified"',
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "that the exchange has none is said where trades were seen",
        "store/guard.py",
        "AND candle.origin <> {FINAL.value} AND candle.trades > 0 THEN 0",
        "AND candle.origin <> {FINAL.value} AND candle.trades > 0 THEN 1",
        (GUARD + "every_history_ends_as_the_plain_rules_say",),
    ),
    Defect(
        "a symbol that has left goes on",
        "service/listings.py",
        "        if symbol in self.ids:\n            stopped =",
        "        if symbol not in self.ids:\n            stopped =",
        ("seed 103 plain",),
    ),
    Defect(
        "who left while nobody looked is forgotten",
        "service/sorting.py",
        "            if symbol not in trading:\n                told =",
        "            if not symbol:\n                told =",
        ("seed 100 plain",),
    ),
    Defect(
        "a symbol that joined late has no past",
        "service/market.py",
        "return {number: at_ms for number, at_ms in begun.items() if max(first_ms, boundary_ms - DAY_MS - 1) < at_ms}",
        "return {number: at_ms for number, at_ms in begun.items() if max(first_ms, boundary_ms) < at_ms}",
        ("seed 3550 plain",),
    ),
    Defect(
        "a start knows nothing of what was stored",
        "service/market.py",
        "        await self._resume(symbols, ids, stored, boundary_ms)",
        "        stored.clear()\n        await self._resume(symbols, ids, stored, boundary_ms)",
        ("seed 70 plain",),
    ),
    Defect(
        "a row that may still change is taken for final",
        "exchange/klines.py",
        "SETTLE_MS: Final = 10_000",
        "SETTLE_MS: Final = 0",
        ("seed 5 plain",),
    ),
    Defect(
        "the running row of an answer is taken for closed",
        "exchange/klines.py",
        "if end_of_row_ms > asked_ms:",
        "if open_ms > asked_ms:",
        ("tests/exchange/test_klines.py::test_a_running_candle_is_left_out_and_an_unsettled_one_not_verified",),
    ),
    Defect(
        "bans are ignored",
        "exchange/budget.py",
        "return max(self._blocked_until_ns - self._clock.monotonic_ns(), 0) / 1e9",
        "return 0.0",
        ("seed 7 plain", "seed 28 plain", "seed 41 plain"),
    ),
    Defect(
        "candles on evidence are never compared",
        "repair/queue.py",
        "        found: dict[tuple[int, int], list[int]] = {}\n        allowed =",
        "        found: dict[tuple[int, int], list[int]] = {}\n        if not self._urgent:\n            return found\n        allowed =",
        ("seed 2 plain",),
    ),
    Defect(
        "a range asked for ends a row early",
        "repair/plan.py",
        "ranges.append((wanted[index], interval.next_open(wanted[after - 1])))",
        "ranges.append((wanted[index], wanted[after - 1]))",
        ("tests/repair/test_plan.py::test_ranges_by_example",),
    ),
)

BORDERS = (
    Defect(
        "endTime is excluded",
        "serve/rest.py",
        "_FAR_MS if end_ms is None else end_ms + 1",
        "_FAR_MS if end_ms is None else end_ms",
        (KLINES + "start_and_end_are_both_included",),
    ),
    Defect(
        "startTime is excluded",
        "serve/rest.py",
        "low_ms, high_ms = start_ms or 0,",
        "low_ms, high_ms = (start_ms or -1) + 1,",
        (KLINES + "start_and_end_are_both_included",),
    ),
    Defect(
        "the running row is left out where a request begins with it",
        "serve/rest.py",
        "if low_ms <= running_ms < high_ms:",
        "if low_ms < running_ms < high_ms:",
        (KLINES + "start_and_end_are_both_included",),
    ),
    Defect(
        "the running row is one more than the limit",
        "serve/rest.py",
        "if len(running) and len(closed) < limit else closed",
        "if len(running) else closed",
        (KLINES + "a_limit_counts_the_oldest_from_a_start_and_else_the_newest",),
    ),
    Defect(
        "without a start the oldest rows come",
        "serve/rest.py",
        "newest = start_ms is None\n",
        "newest = False\n",
        (KLINES + "a_limit_counts_the_oldest_from_a_start_and_else_the_newest",),
    ),
    Defect(
        "a start after its end is no error on futures",
        "serve/rest.py",
        "start_ms > end_ms and not self._spot:",
        "start_ms > end_ms and self._spot:",
        (KLINES + "start_and_end_are_both_included",),
    ),
    Defect(
        "microseconds are taken for milliseconds",
        "serve/query.py",
        "MICROSECONDS_FROM: Final = 10**14",
        "MICROSECONDS_FROM: Final = 10**16",
        (KLINES + "a_row_ends_a_millisecond_before_the_next_begins_and_spot_takes_microseconds",),
    ),
    Defect(
        "a row ends when the next begins",
        "serve/digits.py",
        "result: Ints = ends * unit - 1",
        "result: Ints = ends * unit",
        (KLINES + "a_row_ends_a_millisecond_before_the_next_begins_and_spot_takes_microseconds",),
    ),
    Defect(
        "a chart's bars hold the one that opens at its end",
        "serve/udf.py",
        "                to * SECOND_MS,\n",
        "                to * SECOND_MS + 1,\n",
        (NATIVE + "bars_from_until_before_to",),
    ),
    Defect(
        "a chart's bars lack the one that opens at its beginning",
        "serve/udf.py",
        'candles["open_ms"] >= from_s * SECOND_MS]',
        'candles["open_ms"] > from_s * SECOND_MS]',
        (NATIVE + "bars_from_until_before_to",),
    ),
    Defect(
        "the native API's end is included",
        "serve/native/candles.py",
        "else min(end_ms, ask.end_ms)",
        "else min(end_ms, ask.end_ms + 1)",
        (NATIVE + "candles_from_start_until_before_end",),
    ),
    Defect(
        "the native API's running candle comes where it opens at the end",
        "serve/native/candles.py",
        "(ask.end_ms is None or open_ms < ask.end_ms)",
        "(ask.end_ms is None or open_ms <= ask.end_ms)",
        (NATIVE + "candles_from_start_until_before_end",),
    ),
    Defect(
        "the native API's running candle is left out where it opens at the start",
        "serve/native/candles.py",
        "return (ask.start_ms is None or open_ms >= ask.start_ms)",
        "return (ask.start_ms is None or open_ms > ask.start_ms)",
        (NATIVE + "candles_from_start_until_before_end",),
    ),
    Defect(
        "the candle of an instant is given before it has closed",
        "serve/native/candles.py",
        "if frame.next_open(open_ms) <= durable_ms else open_ms",
        "if open_ms <= durable_ms else open_ms",
        (NATIVE + "the_candle_that_contains_an_instant", "tests/serve_native/test_candles.py"),
    ),
    Defect(
        "a full page says that there is more",
        "serve/native/candles.py",
        "more = len(known.candles) > limit",
        "more = len(known.candles) >= limit",
        (NATIVE + "a_limit_that_is_just_reached_leaves_nothing_and_one_less_says_where_it_goes_on",),
    ),
    Defect(
        "a hole at the end of what was asked for is not told",
        "serve/native/candles.py",
        "last = _position(frame, end_ms - 1)",
        "last = _position(frame, end_ms - 1) - 1",
        ("tests/serve_native/test_candles.py::test_holes_are_what_a_walk_over_the_calendar_finds",),
    ),
    Defect(
        "an export in pieces lacks a candle between two",
        "export/source.py",
        'start_ms = int(piece.candles["open_ms"][-1]) + 1',
        'start_ms = int(piece.candles["open_ms"][-1]) + 60_001',
        ("tests/test_export.py::test_range_and_chunks",),
    ),
)

DEFECTS = (*ENGINE, *RULES_AND_STORE, *SERVICE, *BORDERS)
BY_NAME = {one.name: one for one in DEFECTS}
