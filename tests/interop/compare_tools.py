#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""compare_tools - run commands with our tools and with stock's, and compare.

usage: compare_tools.py BINDIR CASES [NAME...]

CASES is a file of cases in tests/interop/cases.  A case is a block of lines:

    # what it shows
    name: resize-grow
    allow: stderr
    $ truncate -s 1M a.img
    > qemu-img resize -f raw a.img 2M

Lines with "$" are shell commands that prepare, lines with ">" are compared:
each runs in two scratch folders, once with our tools first on PATH and once
with stock's, and must give the same standard output, standard error and exit
status; afterwards both folders must hold the same files, with the same bytes
and the same holes.  Standard input is empty unless the command redirects it.

"allow:" names what may differ in a case (stdout, stderr, extents, files),
which needs a reason in the comment.  "differs:" says why a case as a whole is
expected to differ; it fails when it no longer does, so that the line goes.

What differs by nature is made equal first: the paths of the programs, the
times and speeds that qemu-io and bench report, and progress in between.

Stock's tools are found in $QEMU10_BIN or else by scripts/qemu10; without them
the test is skipped with the reason.  The output is TAP.
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
TIMEOUT = 60
PARTS = ('stdout', 'stderr', 'status', 'files', 'extents')


def find_stock():
    """The folder of stock's tools, and why there is none."""
    where = os.environ.get('QEMU10_BIN')
    if not where:
        got = subprocess.run([os.path.join(TOP, 'scripts', 'qemu10')],
                             capture_output=True, text=True, check=False)
        if got.returncode != 0:
            return None, ' '.join(got.stderr.split())
        where = got.stdout.strip()
    for tool in ('qemu-img', 'qemu-io'):
        if not os.access(os.path.join(where, tool), os.X_OK):
            return None, f'no stock {tool} in {where}'
    return where, None


class Case:
    """One block of a file of cases."""

    def __init__(self, number):
        self.name = f'case at line {number}'
        self.allow = set()
        self.differs = None
        self.steps = []             # (compared, command)


def parse_cases(path):
    cases = []
    case = None
    with open(path, encoding='utf-8') as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip('\n')
            if not line.strip():
                case = None
                continue
            if case is None:
                case = Case(number)
                cases.append(case)
            if line.startswith('name: '):
                case.name = line[6:]
            elif line.startswith('allow: '):
                case.allow = set(line[7:].split())
                unknown = case.allow - set(PARTS)
                if unknown:
                    sys.exit(f'{path}:{number}: allow what? {unknown}')
            elif line.startswith('differs: '):
                case.differs = line[9:]
            elif line[:2] in ('$ ', '> '):
                case.steps.append((line[0] == '>', line[2:]))
            elif not line.startswith('#'):
                sys.exit(f'{path}:{number}: {line!r}')
    return [c for c in cases if c.steps]


NORMAL = (
    # argv[0] of an installed program and of ours
    (re.compile(rb'[^\s\']*/(qemu-(?:img|io))(?=[ :\']|$)', re.M), rb'\1'),
    # qemu-io: time and speed
    (re.compile(rb'(\d ops; )[0-9:.]+(?: sec)? \(.*/sec and .* ops/sec\)'),
     rb'\1TIME'),
    (re.compile(rb'^(\d+,\d+),\d+:\d\d:\d\d\.\d\d,[0-9.]+,[0-9.]+$', re.M),
     rb'\1,TIME'),
    # bench
    (re.compile(rb'(Run completed in) [0-9.]+'), rb'\1 TIME'),
    # progress: only that it begins and ends
    (re.compile(rb'(?:    \(\d+\.\d\d/100%\)\r)+(?=    \(100)'),
     rb'    (PROGRESS)\r'),
    # ours also names who holds a lock
    (re.compile(rb'^The lock is held by process .*\n', re.M), rb''),
    # names that count up
    (re.compile(rb'#block\d+'), rb'#blockN'),
)


def normalize(text):
    for pattern, replacement in NORMAL:
        text = pattern.sub(replacement, text)
    return text


def holes(path):
    """The data extents of a file as [(start, end)]."""
    extents = []
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)                # what is written late has no extent yet
        end = os.fstat(fd).st_size
        pos = 0
        while pos < end:
            try:
                data = os.lseek(fd, pos, os.SEEK_DATA)
            except OSError:
                break               # a hole up to the end
            pos = os.lseek(fd, data, os.SEEK_HOLE)
            extents.append((data, pos))
    finally:
        os.close(fd)
    return extents


def read_tree(folder):
    """What a run left: bytes and extents of each file."""
    files, extents = {}, {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path) or not os.path.isfile(path):
                files[key] = 'special'
                continue
            with open(path, 'rb') as f:
                files[key] = f.read()
            extents[key] = holes(path)
    return files, extents


def run_side(case, tools, folder):
    """Run a case's commands with @tools; a list of (command, results)."""
    env = dict(os.environ, PATH=tools + os.pathsep + os.environ['PATH'],
               LC_ALL='C.UTF-8')
    results = []
    for compared, command in case.steps:
        try:
            done = subprocess.run(['sh', '-c', command], cwd=folder, env=env,
                                  stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=TIMEOUT,
                                  check=False)
        except subprocess.TimeoutExpired:
            results.append((command, {'status': 'timed out'}))
            break
        if compared:
            results.append((command, {
                'stdout': normalize(done.stdout),
                'stderr': normalize(done.stderr),
                'status': done.returncode,
            }))
        elif done.returncode != 0:
            sys.exit(f'{case.name}: {command}: {done.stderr.decode()}')
    return results


def text(value):
    return value.decode(errors='replace') if isinstance(value, bytes) \
        else str(value)


def describe(what, ours, stock):
    """The lines in which two texts differ."""
    diff = difflib.unified_diff(text(stock).splitlines(),
                                text(ours).splitlines(),
                                'stock', 'ours', lineterm='', n=0)
    return [f'  {what}:'] + [f'    {line}' for line in diff
                             if not line.startswith('@@')]


def compare_trees(case, ours, stock):
    problems = []
    for what, mine, theirs in (('files', ours[0], stock[0]),
                               ('extents', ours[1], stock[1])):
        if what in case.allow:
            continue
        for name in sorted(set(mine) | set(theirs)):
            a, b = mine.get(name), theirs.get(name)
            if a == b:
                continue
            if what == 'files' and None not in (a, b):
                a, b = f'{len(a)} bytes', f'{len(b)} bytes that differ'
            elif what == 'files':
                a, b = ('none' if x is None else 'there' for x in (a, b))
            problems += describe(f'{what} of {name}', a, b)
    return problems


def run_case(case, ours, stock):
    """What differs, as lines; none if nothing does."""
    problems = []
    with tempfile.TemporaryDirectory(prefix='interop-') as scratch:
        sides = []
        for who, tools in (('a', ours), ('b', stock)):
            folder = os.path.join(scratch, who)
            os.mkdir(folder)
            sides.append((run_side(case, tools, folder), read_tree(folder)))
        for (command, mine), (_, theirs) in zip(sides[0][0], sides[1][0]):
            wrong = [p for p in ('stdout', 'stderr', 'status')
                     if p not in case.allow and mine.get(p) != theirs.get(p)]
            if wrong:
                problems.append(f'  > {command}')
            for part in wrong:
                problems += describe(part, mine.get(part), theirs.get(part))
        problems += compare_trees(case, sides[0][1], sides[1][1])
    return problems


def link_tools(bindir, folder):
    """Our tools under their names in one folder, as they are installed."""
    for tool in ('qemu-img', 'qemu-io'):
        ours = os.path.join(bindir, tool)
        if not (os.path.isfile(ours) and os.access(ours, os.X_OK)):
            sys.exit(f'{ours} has not been built')
        os.symlink(ours, os.path.join(folder, tool))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    bindir, path, only = sys.argv[1], sys.argv[2], sys.argv[3:]
    stock, missing = find_stock()
    if not stock:
        print(f'1..0 # SKIP {missing}')
        return 0
    cases = [c for c in parse_cases(path) if not only or c.name in only]
    if not cases:
        sys.exit(f'{path}: no case called {shlex.join(only)}')
    failed = 0
    with tempfile.TemporaryDirectory(prefix='interop-bin-') as ours:
        link_tools(os.path.abspath(bindir), ours)
        print(f'1..{len(cases)}')
        for number, case in enumerate(cases, 1):
            problems = run_case(case, ours, stock)
            if case.differs and problems:
                print(f'not ok {number} {case.name} # TO' f'DO {case.differs}')
                continue
            if case.differs:
                problems = ['  differs no longer: ' + case.differs]
            failed += bool(problems)
            print(f'{"not ok" if problems else "ok"} {number} {case.name}')
            for line in problems:
                print(f'# {line}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
