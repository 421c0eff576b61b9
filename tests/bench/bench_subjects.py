# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmark compares, and how one measurement of each is made.

A subject is a set of binaries under a label: ours, a stock release, or the
limit server.  It knows how to serve a vhost-user row and how to run a tool
row; where it cannot, it says why (Skip).  Everything that is started is
stopped by its pid before the measurement returns.

"""
import json
import os
import signal
import subprocess
import time

import bench_qcow2


class Skip(Exception):
    """This subject has no such row; the message is the reason."""


class Failed(Exception):
    """It should have worked."""


def pin(core):
    """A preexec_fn that keeps the child on a core; None leaves it free."""
    if core is None:
        return None
    return lambda: os.sched_setaffinity(0, {core})


def wait_until(what, probe, seconds=20.0):
    """Polls probe() until it is true; Failed after that time."""
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise Failed(f'{what} took more than {seconds:.0f} s')
        time.sleep(0.002)


class Server:
    """A running server; a context manager.  @refused is what it is when the
    program ends instead of serving."""

    def __init__(self, argv, socket, log, core, is_stock, refused):
        if os.path.exists(socket):
            os.unlink(socket)
        self.log = log
        self.is_stock = is_stock
        self.refused = refused
        self.socket = socket
        with open(log, 'wb') as out:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                         stdout=out, stderr=out,
                                         preexec_fn=pin(core))

    def message(self):
        with open(self.log, errors='replace') as f:
            lines = f.read().strip().splitlines()
        return lines[-1] if lines else 'no message'

    def is_up(self):
        if self.proc.poll() is not None:
            raise self.refused(f'server does not start: {self.message()}')
        return os.path.exists(self.socket)

    def __enter__(self):
        try:
            wait_until('starting the server', self.is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(3 if self.is_stock else 20)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            # Stock 7.2 does this once in twenty runs.  The figures were taken.
            if not self.is_stock:
                raise Failed('server ignores SIGTERM') from None
            print('  (a stock server ignored SIGTERM and was killed)')


class Subject:
    """Common part: how a vhost-user measurement is made."""
    has_tools = False

    def __init__(self, label, is_stock=False):
        self.label = label
        self.is_stock = is_stock

    def server_argv(self, row, env):
        raise NotImplementedError

    def prepare_image(self, row, env):
        """Makes the image that the row wants, if that is not there."""

    def run(self, argv, **options):
        """Runs a program to its success; Failed says how it ended instead."""
        try:
            run = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                                 capture_output=True, **options)
        except subprocess.TimeoutExpired as e:
            raise Failed(f'{self.label}: {e}') from None
        if run.returncode != 0:
            raise Failed(f'{self.label}: status {run.returncode} of '
                         f'{" ".join(argv)}: {run.stderr.strip()}')
        return run

    def measure_vhost(self, row, env):
        """One run of the generator; its JSON result."""
        self.prepare_image(row, env)
        argv = [env.generator, '--socket', env.socket,
                '--queues', str(row.queues), '--depth', str(row.depth),
                '--rw', row.rw, '--wait', row.wait] + env.amount(row)
        generator_core, server_core = env.cores(row)
        # A kernel may be without io_uring; all else has to work.
        refused = Skip if 'io_uring' in row.backend else Failed
        with Server(self.server_argv(row, env), env.socket, env.log,
                    server_core, self.is_stock, refused) as s:
            run = self.run(argv + ['--server-pid', str(s.proc.pid)],
                           timeout=300, preexec_fn=pin(generator_core))
        r = json.loads(run.stdout)
        return {'iops': r['iops'], 'p50_us': r['latency_us']['p50'],
                'p99_us': r['latency_us']['p99'],
                'cpu': r['server_cpu_s_per_million']}


class Limit(Subject):
    """The limit server: null, or pread and pwrite."""

    def __init__(self, binary):
        super().__init__('limit')
        self.binary = binary

    def server_argv(self, row, env):
        if row.is_qcow2:
            raise Skip('knows no formats')
        argv = [self.binary, '--socket', env.socket,
                '--queues', str(row.queues)]
        if row.backend != 'null':
            argv += ['--file', env.disk]
        if row.backend.startswith('direct'):
            argv += ['--direct']
        return argv


class Emulator(Subject):
    """A qemu-storage-daemon and a qemu-img, ours or stock."""
    has_tools = True

    def __init__(self, label, folder, export_options=''):
        super().__init__(label, label != 'ours')
        self.folder = folder
        self.export_options = export_options

    def binary(self, name):
        path = os.path.join(self.folder, name)
        if not os.access(path, os.X_OK):
            raise Skip(f'no {name} in {self.folder}')
        return path

    def prepare_image(self, row, env):
        if row.is_qcow2:
            images = bench_qcow2.Images(env, self, self.binary('qemu-img'))
            images.make(row.image)

    def server_argv(self, row, env):
        if row.backend == 'null':
            dev = ['driver=null-co,node-name=d,size=1073741824,'
                   'read-zeroes=off']
        else:
            cache, aio = {'buffered': ('off', 'threads'),
                          'direct-native': ('on', 'native'),
                          'direct-io_uring': ('on', 'io_uring')}[row.storage]
            file = env.path(row.image)
            dev = [f'driver=file,node-name=f,filename={file},aio={aio},'
                   f'cache.direct={cache}',
                   f'driver={row.format},node-name=d,file=f,'
                   f'cache.direct={cache}']
        argv = [self.binary('qemu-storage-daemon')]
        for d in dev:
            argv += ['--blockdev', d]
        return argv + [
            '--object', 'iothread,id=io', '--export',
            f'type=vhost-user-blk,id=e,node-name=d,writable=on,iothread=io,'
            f'num-queues={row.queues},addr.type=unix,addr.path={env.socket}'
            + self.export_options]

    def measure_tool(self, row, env):
        """What one run of a tool took, and the size of what it wrote."""
        binary = self.binary('qemu-img')
        bench_qcow2.Images(env, self, binary).prepare(row)
        run = self.run([env.run_once, binary] + row.argv(env))
        result = json.loads(run.stdout)
        if row.writes:
            result['size'] = os.stat(env.path(row.writes)).st_blocks * 512
        return result
