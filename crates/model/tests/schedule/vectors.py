"""When unix-cron jobs are due around the days on which clocks change, found minute by minute.

croniter reads the expressions, zoneinfo says what a clock shows; the rule for skipped and repeated times is the one
that crates/model/src/schedule/cron.rs names. Needs `pip install croniter==7.0.0 tzdata`. `vectors.py` prints the sample that is beside this
file, `vectors.py --all` every zone, each of its changes of clocks in that year, and 200 expressions.
"""

import json
import random
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone

from croniter import croniter

UTC = timezone.utc
FULL = "--all" in sys.argv
YEAR = 2026
ZONES = sorted(zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"})
SAMPLE = ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tokyo", "America/Santiago", "Africa/Cairo", "Antarctica/Troll", "Europe/Dublin"]


def expressions(count):
    chance = random.Random(1)

    def field(low, high, names=()):
        kind = chance.randrange(7)
        if kind < 2:
            return "*"
        if kind == 2:
            return f"*/{chance.choice([2, 3, 5, 7, 15, 20])}"
        if kind == 3:
            return ",".join(str(n) for n in sorted({chance.randint(low, high) for _ in range(3)}))
        if kind == 4:
            first = chance.randint(low, high - 1)
            # A range of one with a step is read by croniter as if it went on to the end.
            last = chance.randint(first + 1, high)
            return f"{first}-{last}" + chance.choice(["", "/2", "/3"])
        return chance.choice(names) if names and kind == 5 else str(chance.randint(low, high))

    months = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
    days = "SUN MON TUE WED THU FRI SAT".split()
    made = ["30 2 * * *", "30 1 * * *", "*/30 * * * *", "0 * * * *", "15,45 0-3 * * *", "*/7 1-3 * * *", "0 9 * * *", "0 0 * * *", "59 23 * * *", "* * * * *"]
    while len(made) < count:
        # Most of what is made is due on the days looked at.
        minute, hour = field(0, 59), chance.choice([field(0, 23), str(chance.randint(0, 4)), "0-4"])
        day, month, week = chance.choice([("*", "*", "*"), ("*", "*", field(0, 7, days)), (field(1, 31), field(1, 12, months), "*"), (str(chance.randint(1, 31)), "*", field(0, 6, days))])
        # Stars with steps in both fields of days mean different things to different crons; Google does not say which it is.
        if day.startswith("*/") or week.startswith("*/"):
            continue
        made.append(f"{minute} {hour} {day} {month} {week}")
    return made


def fields(expression):
    minute, hour, day, month, week = croniter(expression).expanded[:5]
    whole = lambda values, low, high: set(range(low, high + 1)) if values == ["*"] else set(values)
    parts = expression.split()
    return {
        "minute": whole(minute, 0, 59), "hour": whole(hour, 0, 23), "day": whole(day, 1, 31), "month": whole(month, 1, 12), "week": {n % 7 for n in whole(week, 0, 6)},
        "either": parts[2] != "*" and parts[4] != "*", "repeated": parts[0].startswith("*") or parts[1].startswith("*"),
    }


def shows(rule, clock):
    """Whether a job is due when the clock shows that."""
    if clock.minute not in rule["minute"] or clock.hour not in rule["hour"] or clock.month not in rule["month"]:
        return False
    day, week = clock.day in rule["day"], clock.isoweekday() % 7 in rule["week"]
    return day or week if rule["either"] else day and week


def due(rule, clocks):
    """Minutes after the start. `clocks` is what the clock shows each minute, and whether for the second time."""
    found, before = [], None
    for minute, (clock, second) in enumerate(clocks):
        skipped = before is not None and clock - before > timedelta(minutes=1)
        if shows(rule, clock) and (rule["repeated"] or not second):
            found.append(minute)
        elif skipped and not rule["repeated"] and any(shows(rule, before + timedelta(minutes=n)) for n in range(1, int((clock - before).total_seconds() // 60))):
            found.append(minute)
        before = clock
    return found


def changes(zone):
    """The instants within YEAR at which the zone's offset changes, to the hour before."""
    at, end = datetime(YEAR, 1, 1, tzinfo=UTC), datetime(YEAR + 1, 1, 1, tzinfo=UTC)
    while at < end:
        if at.astimezone(zone).utcoffset() != (at + timedelta(hours=1)).astimezone(zone).utcoffset():
            yield at
        at += timedelta(hours=1)


def main():
    rules = [(text, fields(text)) for text in expressions(200 if FULL else 40)]
    known, tables, windows = {}, [], []
    for name in ZONES if FULL else SAMPLE:
        zone = zoneinfo.ZoneInfo(name)
        # A zone without changes is looked at on any day.
        for change in list(changes(zone)) or [datetime(2026, 3, 8, tzinfo=UTC)]:
            start = change.replace(hour=0) - timedelta(hours=12)
            clocks = []
            for minute in range(48 * 60):
                at = (start + timedelta(minutes=minute)).astimezone(zone)
                clocks.append((at.replace(tzinfo=None, fold=0), bool(at.fold)))
            key = (clocks[0], clocks[720], tuple(c[0] - clocks[0][0] for c in clocks[::15]))
            if key not in known:
                known[key] = len(tables)
                # Minute 0 is not asked for: schedules give what comes after an instant.
                tables.append([[minute for minute in due(rule, clocks) if minute > 0] for _, rule in rules])
            windows.append({"zone": name, "start": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "table": known[key]})
    print(json.dumps({"expressions": [text for text, _ in rules], "tables": tables, "windows": windows}, separators=(",", ":")))


main()
