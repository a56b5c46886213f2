"""Counts what holds; the first thing that does not ends the program."""

passed = 0


def check(what, seen, expect=True):
    global passed
    assert seen == expect, f"{what}: {seen!r}, not {expect!r}"
    passed += 1


def refused(what, kind, call):
    """`call` must raise an error of this kind; gives it."""
    try:
        seen = call()
    except kind as error:
        check(what, True)
        return error
    raise AssertionError(f"{what}: answered {seen!r}, not {kind.__name__}")


def told():
    print(f"{passed} checks passed")
